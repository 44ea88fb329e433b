//! Where spans go: a collector that speaks OTLP, as Jaeger does.

use std::{str::FromStr, time::Duration};

use http::{Uri, uri::Scheme};
use opentelemetry_otlp::{ExporterBuildError, Protocol, SpanExporter, WithExportConfig};

/// OTLP's port for gRPC; 4318 is the one for HTTP
/// (<https://opentelemetry.io/docs/specs/otlp/#otlpgrpc-default-port>).
const GRPC_PORT: u16 = 4317;
/// How long the collector may take for a batch. Nothing else waits meanwhile, but at a shutdown.
const TIMEOUT: Duration = Duration::from_secs(2);

/// The address of a collector, and how it is spoken to.
///
/// `grpc://host` and port 4317 are gRPC; any other `http://host:4318` is HTTP with protobuf, at `/v1/traces` if no path
/// says otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Collector {
    speaks: Speaks,
    endpoint: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Speaks {
    Grpc,
    Http,
}

/// A text that is no address of a collector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidCollector;

impl FromStr for Collector {
    type Err = InvalidCollector;

    /// # Errors
    /// When it is no `grpc` or `http` address, or has a query.
    fn from_str(text: &str) -> Result<Self, InvalidCollector> {
        let uri = text.parse::<Uri>().map_err(|_| InvalidCollector)?;
        let (Some(scheme), Some(authority), None) = (uri.scheme(), uri.authority(), uri.query()) else {
            return Err(InvalidCollector);
        };
        // Whoever has to name themselves does not get far: nothing here knows how.
        if authority.as_str().contains('@') {
            return Err(InvalidCollector);
        }
        let is_root = matches!(uri.path(), "" | "/");
        let port = authority.port_u16();
        match scheme.as_str() {
            "grpc" if is_root => Ok(Self {
                speaks: Speaks::Grpc,
                endpoint: format!("http://{}:{}", authority.host(), port.unwrap_or(GRPC_PORT)),
            }),
            "http" if is_root && port == Some(GRPC_PORT) => {
                Ok(Self { speaks: Speaks::Grpc, endpoint: format!("http://{authority}") })
            }
            _ if *scheme == Scheme::HTTP => {
                let path = if is_root { "/v1/traces" } else { uri.path() };
                Ok(Self { speaks: Speaks::Http, endpoint: format!("http://{authority}{path}") })
            }
            _ => Err(InvalidCollector),
        }
    }
}

impl Collector {
    /// Within a tokio runtime, where it speaks gRPC.
    pub(crate) fn exporter(&self) -> Result<SpanExporter, ExporterBuildError> {
        match self.speaks {
            Speaks::Grpc => SpanExporter::builder()
                .with_tonic()
                .with_endpoint(&self.endpoint)
                .with_timeout(TIMEOUT)
                .build(),
            Speaks::Http => SpanExporter::builder()
                .with_http()
                .with_protocol(Protocol::HttpBinary)
                .with_endpoint(&self.endpoint)
                .with_timeout(TIMEOUT)
                .build(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, speaks: Speaks, endpoint: &str) {
        assert_eq!(text.parse(), Ok(Collector { speaks, endpoint: endpoint.into() }), "{text}");
    }

    #[test]
    fn scheme_and_port_say_how_a_collector_is_spoken_to() {
        check("grpc://jaeger", Speaks::Grpc, "http://jaeger:4317");
        check("grpc://jaeger:14317", Speaks::Grpc, "http://jaeger:14317");
        check("http://jaeger:4317", Speaks::Grpc, "http://jaeger:4317");
        check("http://jaeger:4318", Speaks::Http, "http://jaeger:4318/v1/traces");
        check("http://jaeger:4318/", Speaks::Http, "http://jaeger:4318/v1/traces");
        check("http://gateway/otlp/v1/traces", Speaks::Http, "http://gateway/otlp/v1/traces");
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for text in [
            "",
            "jaeger",
            "jaeger:4317",
            "/v1/traces",
            "https://jaeger:4318",
            "http://jaeger/?a",
            "http://user:password@jaeger:4318",
            "udp://a",
        ] {
            assert_eq!(text.parse::<Collector>(), Err(InvalidCollector), "{text}");
        }
    }
}
