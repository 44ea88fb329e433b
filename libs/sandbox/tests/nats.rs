//! A nats-server as a child: it answers, keeps what it acknowledged, and never outlives its parent.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use async_nats::jetstream::{self, stream};
use sandbox::nats::{Error, NatsOptions, NatsServer};
use tempfile::TempDir;

const STREAM: &str = "PARCELS";

/// Set for the process that `the_server_dies_with_a_killed_parent` starts and kills.
const STORE_OF_CHILD: &str = "SANDBOX_TEST_STORE";

/// Set for the process that `where_no_server_can_be_had_the_ways_out_are_named` starts.
const BARE_MACHINE: &str = "SANDBOX_TEST_BARE";

async fn jetstream(server: &NatsServer) -> jetstream::Context {
    jetstream::new(async_nats::connect(server.url()).await.expect("connect"))
}

async fn publish_one(server: &NatsServer) {
    let jetstream = jetstream(server).await;
    let config =
        stream::Config { name: STREAM.into(), subjects: vec!["parcels".into()], ..Default::default() };
    jetstream.get_or_create_stream(config).await.expect("stream");
    jetstream.publish("parcels", "one".into()).await.expect("publish").await.expect("acknowledgement");
}

async fn messages(server: &NatsServer) -> u64 {
    let mut stream = jetstream(server).await.get_stream(STREAM).await.expect("stream");
    stream.info().await.expect("info").state.messages
}

fn options(dir: &Path) -> NatsOptions {
    NatsOptions { store_dir: dir.to_owned(), port: None, users: None }
}

fn store() -> TempDir {
    tempfile::tempdir().expect("temporary directory")
}

async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < deadline, "waited too long until {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// A zombie is dead, whoever may have to collect it.
fn alive(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

#[tokio::test]
async fn two_servers_at_once_do_not_meet() {
    let (a, b) = tokio::try_join!(NatsServer::temporary(), NatsServer::temporary()).expect("two servers");
    assert_ne!(a.url(), b.url());
    publish_one(&a).await;
    assert!(jetstream(&b).await.get_stream(STREAM).await.is_err());
}

#[tokio::test]
async fn a_killed_server_comes_back_with_what_it_acknowledged() {
    let mut server = NatsServer::temporary().await.expect("server");
    publish_one(&server).await;
    let (url, pid) = (server.url().to_owned(), server.pid().expect("pid"));

    server.kill();
    assert!(!alive(pid));
    assert_eq!(server.pid(), None);
    server.restart().await.expect("restart");

    assert_eq!(server.url(), url);
    assert_ne!(server.pid(), Some(pid));
    assert_eq!(messages(&server).await, 1);
}

#[tokio::test]
async fn a_server_that_was_shut_down_is_started_again_on_its_store() {
    let dir = store();
    let server = NatsServer::start(options(dir.path())).await.expect("server");
    publish_one(&server).await;
    server.shutdown().await.expect("shutdown");
    let log = std::fs::read_to_string(dir.path().join("nats.log")).expect("log");
    assert!(log.contains("Server Exiting"), "not stopped in good order:\n{log}");

    let server = NatsServer::start(options(dir.path())).await.expect("server");
    assert_eq!(messages(&server).await, 1);
}

#[tokio::test]
async fn a_temporary_store_goes_with_its_server() {
    let server = NatsServer::temporary().await.expect("server");
    let pid = server.pid().expect("pid");
    let command = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).expect("command line");
    let config = command.split('\0').find(|arg| arg.ends_with("nats.conf")).expect("configuration");
    let dir = Path::new(config).parent().expect("store").to_owned();
    assert!(dir.exists());

    drop(server);
    assert!(!alive(pid));
    assert!(!dir.exists());
}

#[tokio::test]
async fn a_port_that_is_taken_is_said_to_be() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("port");
    let port = taken.local_addr().expect("address").port();
    let dir = store();
    let error = NatsServer::start(NatsOptions { port: Some(port), ..options(dir.path()) })
        .await
        .expect_err("the port is taken");
    assert!(matches!(&error, Error::Ended { last_words, .. } if last_words.contains("in use")), "{error}");
}

#[tokio::test]
async fn ctrl_c_in_the_terminal_does_not_reach_the_server() {
    let server = NatsServer::temporary().await.expect("server");
    let pid = server.pid().expect("pid");
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("stat");
    // After the name in brackets: state, parent, process group.
    let group = stat.rsplit(") ").next().and_then(|rest| rest.split(' ').nth(2)).expect("group");
    assert_eq!(group, pid.to_string());
}

/// Not a test of its own: what the next test runs where there is neither server nor python.
#[tokio::test]
async fn nothing_to_be_found() {
    let Some(bare) = std::env::var_os(BARE_MACHINE) else { return };
    let error = NatsServer::start(options(Path::new(&bare))).await.expect_err("there is none");
    assert!(matches!(error, Error::NotFound { .. }), "{error}");
    for way_out in ["PATH", "python3", "NATS_URL"] {
        assert!(error.to_string().contains(way_out), "{error}");
    }
}

#[test]
fn where_no_server_can_be_had_the_ways_out_are_named() {
    let bare = store();
    let output = Command::new(std::env::current_exe().expect("this program"))
        .args(["--exact", "nothing_to_be_found"])
        .env(BARE_MACHINE, bare.path())
        .env("PATH", bare.path())
        .env("XDG_CACHE_HOME", bare.path())
        .output()
        .expect("a second process");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

/// Not a test of its own: what the next test runs as a second process.
#[tokio::test]
async fn parent_to_be_killed() {
    let Some(dir) = std::env::var_os(STORE_OF_CHILD) else { return };
    let server = NatsServer::start(options(Path::new(&dir))).await.expect("server");
    publish_one(&server).await;
    let pid = server.pid().expect("pid").to_string();
    std::fs::write(Path::new(&dir).join("pid.tmp"), pid).expect("write");
    std::fs::rename(Path::new(&dir).join("pid.tmp"), Path::new(&dir).join("pid")).expect("rename");
    std::future::pending::<()>().await;
}

#[tokio::test]
async fn the_server_dies_with_a_killed_parent_and_the_next_one_waits_for_that() {
    let dir = store();
    let mut parent = Command::new(std::env::current_exe().expect("this program"))
        .args(["--exact", "parent_to_be_killed"])
        .env(STORE_OF_CHILD, dir.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("a second process");
    let pid_file = dir.path().join("pid");
    until("the parent has started its server", || pid_file.exists()).await;
    let pid: u32 = std::fs::read_to_string(pid_file).expect("pid").parse().expect("pid");

    parent.kill().expect("SIGKILL");
    parent.wait().expect("dead");
    let next = NatsServer::start(options(dir.path())).await.expect("server");

    until("the server is dead", || !alive(pid)).await;
    assert_eq!(messages(&next).await, 1);
}
