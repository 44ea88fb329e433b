//! Spans arrive at a collector that speaks gRPC. In a process of its own, as telemetry is set up once in each.

use std::time::Duration;

use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
    trace_service_server::{TraceService, TraceServiceServer},
};
use telemetry::Settings;
use tokio::{net::TcpListener, sync::mpsc, time::timeout};
use tonic::{
    Request, Response, Status,
    transport::{Server, server::TcpIncoming},
};

/// Keeps the names of the spans that it is sent.
struct Names(mpsc::UnboundedSender<String>);

#[tonic::async_trait]
impl TraceService for Names {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let scopes =
            request.into_inner().resource_spans.into_iter().flat_map(|resource| resource.scope_spans);
        for span in scopes.flat_map(|scope| scope.spans) {
            self.0.send(span.name).map_err(|_| Status::internal("nobody listens"))?;
        }
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_yet_exported_is_flushed_at_the_end() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, mut names) = mpsc::unbounded_channel();
    let service = TraceServiceServer::new(Names(sender));
    tokio::spawn(Server::builder().add_service(service).serve_with_incoming(TcpIncoming::from(listener)));

    let collector = Some(format!("grpc://{address}").parse().unwrap());
    let guard = telemetry::init(Settings { collector, ..Settings::of("test") });
    tracing::info_span!("span", otel.name = "the last thing that happened").in_scope(|| {});
    tokio::task::spawn_blocking(move || drop(guard)).await.unwrap();
    let name = timeout(Duration::from_secs(10), names.recv()).await.expect("it arrives");
    assert_eq!(name.as_deref(), Some("the last thing that happened"));
}
