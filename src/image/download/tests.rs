use std::{path::PathBuf, sync::Mutex, time::Duration};

use tempfile::TempDir;
use url::Url;

use super::*;
use crate::{
    base::{Digest, progress::Silent},
    image::{
        Checksum, RetryPolicy,
        partial::validator_file,
        test_server::{Reply, Server},
    },
};

const BODY: &[u8] = b"0123456789abcdef";
const QUICK: RetryPolicy = RetryPolicy {
    tries: 3,
    pause: Duration::from_millis(1),
    idle: Duration::from_secs(10),
    first_contact: Duration::from_secs(5),
};
/// Only where silence is what a test is about: a busy host must not look like one.
const HASTY: RetryPolicy = RetryPolicy {
    idle: Duration::from_millis(200),
    ..QUICK
};

/// One download into a directory of its own.
struct Bench {
    directory: TempDir,
    server: Server,
    expected: Option<Checksum>,
}

impl Bench {
    async fn new(script: Vec<Reply>) -> Self {
        Self {
            directory: tempfile::tempdir().expect("temporary directory"),
            server: Server::start(script).await,
            expected: Some(Checksum::Sha256(Digest::of(BODY))),
        }
    }

    fn partial(&self) -> PathBuf {
        self.directory.path().join("partial")
    }

    /// As if an earlier process had been killed.
    fn left_over(self, bytes: &[u8], validator: &str) -> Self {
        std::fs::write(self.partial(), bytes).expect("written");
        std::fs::write(validator_file(&self.partial()), validator).expect("written");
        self
    }

    async fn run(&self) -> Result<Fetched, ImageError> {
        self.run_with(&QUICK, &Silent).await
    }

    async fn run_with(
        &self,
        retry: &RetryPolicy,
        progress: &dyn Progress,
    ) -> Result<Fetched, ImageError> {
        let job = Job {
            name: "file",
            url: &self.server.url("/file"),
            partial: &self.partial(),
            expected: self.expected.as_ref(),
            retry,
        };
        download(&job, progress).await
    }

    /// Asserts that the file comes whole, after these requests with these lines of interest.
    async fn brings_the_body(&self, ranges: &[Option<&str>]) {
        let fetched = self
            .run()
            .await
            .expect("set K3S_VM_CACHE_DIR to a directory that you can write to");
        assert_eq!(
            fetched,
            Fetched {
                digest: Digest::of(BODY),
                size: 16
            }
        );
        assert_eq!(std::fs::read(self.partial()).expect("read"), BODY);
        let requests = self.server.requests();
        assert_eq!(requests.len(), ranges.len(), "{requests:#?}");
        for (request, range) in requests.iter().zip(ranges) {
            let request = request.to_lowercase();
            assert!(request.contains("accept-encoding: identity"), "{request}");
            match range {
                Some(range) => assert!(request.contains(range), "{request}"),
                None => assert!(!request.contains("range"), "{request}"),
            }
        }
    }
}

#[tokio::test]
async fn a_broken_download_is_resumed() {
    let script = vec![Reply::half(BODY, "\"v1\""), Reply::rest(BODY, 8, "\"v1\"")];
    let bench = Bench::new(script).await;
    bench
        .brings_the_body(&[None, Some("range: bytes=8-\r\n")])
        .await;
    assert!(
        bench.server.requests()[1]
            .to_lowercase()
            .contains("if-range: \"v1\"")
    );
}

#[tokio::test]
async fn the_next_process_resumes_a_killed_download() {
    let since = "Wed, 01 Jul 2026 00:00:00 GMT";
    let bench = Bench::new(vec![Reply::rest(BODY, 5, "\"x\"")])
        .await
        .left_over(&BODY[..5], since);
    bench
        .brings_the_body(&[Some("if-range: wed, 01 jul 2026")])
        .await;
}

#[tokio::test]
async fn a_server_without_validators_starts_over() {
    let head = format!(
        "200 OK\r\nETag: W/\"weak\"\r\nContent-Length: {}",
        BODY.len()
    );
    let script = vec![Reply::raw(&head, &BODY[..9]), Reply::ok(BODY)];
    Bench::new(script)
        .await
        .brings_the_body(&[None, None])
        .await;
}

#[tokio::test]
async fn a_server_without_ranges_starts_over() {
    let script = vec![Reply::half(BODY, "\"v1\""), Reply::ok(BODY)];
    Bench::new(script)
        .await
        .brings_the_body(&[None, Some("bytes=8-")])
        .await;
}

#[tokio::test]
async fn a_file_that_changed_is_downloaded_again() {
    let script = vec![
        Reply::half(b"old old old old old", "\"v1\""),
        Reply::with("200 OK", "ETag: \"v2\"", BODY),
    ];
    let bench = Bench::new(script).await;
    bench.brings_the_body(&[None, Some("bytes=9-")]).await;
    let remembered = std::fs::read(validator_file(&bench.partial())).expect("remembered");
    assert_eq!(remembered, b"\"v2\"");
}

#[tokio::test]
async fn a_wrong_range_is_rejected() {
    let script = vec![Reply::rest(BODY, 4, "\"v1\""), Reply::ok(BODY)];
    let bench = Bench::new(script).await.left_over(&BODY[..5], "\"v1\"");
    bench.brings_the_body(&[Some("bytes=5-"), None]).await;
}

#[tokio::test]
async fn a_complete_partial_is_noticed() {
    let complete = Reply::with(
        "416 Range Not Satisfiable",
        "Content-Range: bytes */16",
        b"",
    );
    let bench = Bench::new(vec![complete]).await.left_over(BODY, "\"v1\"");
    bench.brings_the_body(&[Some("bytes=16-")]).await;
}

#[tokio::test]
async fn an_overlong_partial_is_discarded() {
    let too_long = Reply::with(
        "416 Range Not Satisfiable",
        "Content-Range: bytes */16",
        b"",
    );
    let bench = Bench::new(vec![too_long, Reply::ok(BODY)]).await;
    let bench = bench.left_over(b"0123456789abcdefXX", "\"v1\"");
    bench.brings_the_body(&[Some("bytes=18-"), None]).await;
}

#[tokio::test]
async fn a_damaged_partial_download_is_replaced() {
    let script = vec![Reply::rest(BODY, 4, "\"v1\""), Reply::ok(BODY)];
    let bench = Bench::new(script).await.left_over(b"\0\0\0\0", "\"v1\"");
    bench.brings_the_body(&[Some("bytes=4-"), None]).await;
}

#[tokio::test]
async fn the_wrong_file_is_refused_and_not_kept() {
    let bench = Bench::new(vec![Reply::ok(b"something else")]).await;
    let error = bench.run().await.expect_err("wrong");
    let message = error.to_string();
    for part in [
        "/file has the wrong checksum",
        &Digest::of(BODY).to_string(),
        "got SHA-256",
    ] {
        assert!(message.contains(part), "{message}");
    }
    assert_eq!(bench.server.requests().len(), 1, "not asked for again");
    assert!(!bench.partial().exists());
}

#[tokio::test]
async fn not_found_is_final_and_a_server_error_is_not() {
    let bench = Bench::new(vec![Reply::status(404)]).await;
    assert!(bench.run().await.expect_err("404").is_not_found());
    assert_eq!(bench.server.requests().len(), 1);

    let script = vec![Reply::status(500), Reply::status(429), Reply::ok(BODY)];
    Bench::new(script)
        .await
        .brings_the_body(&[None, None, None])
        .await;

    let bench = Bench::new(vec![Reply::status(502); 4]).await;
    let error = bench.run().await.expect_err("502");
    assert!(
        matches!(error, ImageError::Status { status: 502, .. }),
        "{error}"
    );
    assert_eq!(bench.server.requests().len(), 3);
}

#[tokio::test]
async fn silence_times_out() {
    let half = Reply::half(BODY, "\"v1\"").then_silence();
    let bench = Bench::new(vec![half, Reply::rest(BODY, 8, "\"v1\"")]).await;
    let fetched = bench
        .run_with(&HASTY, &Silent)
        .await
        .expect("set K3S_VM_CACHE_DIR to a directory that you can write to");
    assert_eq!(fetched.digest, Digest::of(BODY));
    assert!(bench.server.requests()[1].contains("bytes=8-"));

    let mute = Reply::raw("200 OK\r\nContent-Length: 16", b"").then_silence();
    let bench = Bench::new(vec![mute; 3]).await;
    let error = bench.run_with(&HASTY, &Silent).await.expect_err("silent");
    assert!(error.to_string().contains("/file for 0.2 s"), "{error}");
}

#[tokio::test]
async fn slow_downloads_complete() {
    // In all longer than the silence that would end it, with a wide margin for each byte.
    let bench = Bench::new(vec![Reply::ok(BODY).slowly(Duration::from_millis(150))]).await;
    let retry = RetryPolicy {
        tries: 1,
        idle: Duration::from_secs(2),
        ..QUICK
    };
    let fetched = bench.run_with(&retry, &Silent).await;
    assert_eq!(fetched.expect("in the end").size, 16);
}

#[tokio::test]
async fn a_compressed_response_matches_the_checksum() {
    let labelled = Reply::with("200 OK", "Content-Encoding: gzip", BODY);
    Bench::new(vec![labelled])
        .await
        .brings_the_body(&[None])
        .await;

    for expected in [Some(Checksum::Sha256(Digest::of(BODY))), None] {
        let packed = Reply::with("200 OK", "Content-Encoding: gzip", b"\x1f\x8b rest");
        let mut bench = Bench::new(vec![packed]).await;
        bench.expected = expected;
        let error = bench.run().await.expect_err("packed").to_string();
        assert!(
            error.contains("/file was sent compressed (gzip)"),
            "{error}"
        );
        assert_eq!(bench.server.requests().len(), 1);
        assert!(!bench.partial().exists());
    }
}

#[tokio::test]
async fn a_short_download_reports_both_lengths() {
    let half = Reply::half(BODY, "W/\"weak\"");
    let bench = Bench::new(vec![half; 4]).await;
    let error = bench.run().await.expect_err("truncated");
    assert!(
        error
            .to_string()
            .contains("was interrupted after 8 of 16 bytes"),
        "{error}"
    );
    assert_eq!(
        bench.server.requests().len(),
        3,
        "the first brought something, two more did not"
    );
}

#[tokio::test]
async fn a_progressing_download_is_not_aborted() {
    let tail = |from: usize| {
        let range = format!(
            "Content-Range: bytes {from}-15/16\r\nContent-Length: {}",
            16 - from
        );
        Reply::raw(
            &format!("206 Partial Content\r\n{range}"),
            &BODY[from..from + 1],
        )
    };
    let mut script = vec![Reply::half(BODY, "\"v1\"")];
    script.extend((8..16).map(tail));
    let bench = Bench::new(script).await;
    assert_eq!(bench.run().await.expect("in the end").size, 16);
    assert_eq!(bench.server.requests().len(), 9, "with three tries");
}

#[tokio::test]
async fn an_unreachable_server_is_reported_soon() {
    let bench = Bench::new(Vec::new()).await;
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}/file", listener.local_addr().expect("bound"));
    drop(listener);
    let job = Job {
        name: "file",
        url: &Url::parse(&url).expect("a URL"),
        partial: &bench.partial(),
        expected: None,
        retry: &RetryPolicy {
            pause: Duration::from_millis(1),
            ..RetryPolicy::default()
        },
    };
    let error = download(&job, &Silent).await.expect_err("refused");
    assert_eq!(error.to_string(), format!("cannot reach {url}"));
    let RetryPolicy {
        tries,
        pause,
        first_contact,
        ..
    } = RetryPolicy::default();
    assert!(
        pause * (2u32.pow(tries - 1) - 1) < first_contact,
        "pauses of at most 5 s"
    );
}

#[tokio::test]
async fn a_silent_server_is_abandoned() {
    for (first_contact, requests) in [(Duration::ZERO, 1), (Duration::from_secs(60), 3)] {
        let bench = Bench::new(vec![Reply::nothing().then_silence(); 4]).await;
        let retry = RetryPolicy {
            first_contact,
            ..HASTY
        };
        let error = bench.run_with(&retry, &Silent).await.expect_err("silent");
        assert!(matches!(error, ImageError::Stalled { .. }), "{error}");
        assert_eq!(bench.server.requests().len(), requests);
    }
}

#[tokio::test]
async fn an_oversized_file_is_rejected_first() {
    let huge = Reply::raw("200 OK\r\nContent-Length: 1152921504606846976", BODY);
    let bench = Bench::new(vec![huge]).await;
    let error = bench.run().await.expect_err("1 EiB");
    let message = error.to_string();
    let directory = bench.directory.path().display().to_string();
    for part in [
        "not enough space in",
        &directory,
        "1048576 TiB needed",
        "free",
    ] {
        assert!(message.contains(part), "{message}");
    }
    assert_eq!(bench.server.requests().len(), 1);
}

#[tokio::test]
async fn progress_counts_each_byte_once_and_every_transfer_ends() {
    #[derive(Debug, Default)]
    struct Notes(Mutex<Vec<String>>);
    impl Progress for Notes {
        fn begin(&self, what: &str, done: u64, total: Option<u64>) -> usize {
            self.0
                .lock()
                .expect("sound")
                .push(format!("{what} {done} of {total:?}"));
            7
        }
        fn advance(&self, _: usize, bytes: u64) {
            self.0.lock().expect("sound").push(format!("+{bytes}"));
        }
        fn end(&self, transfer: usize) {
            self.0
                .lock()
                .expect("sound")
                .push(format!("end {transfer}"));
        }
    }
    let script = vec![Reply::half(BODY, "\"v1\""), Reply::rest(BODY, 8, "\"v1\"")];
    let notes = Notes::default();
    Bench::new(script)
        .await
        .run_with(&QUICK, &notes)
        .await
        .expect("set K3S_VM_CACHE_DIR to a directory that you can write to");
    let notes = notes.0.into_inner().expect("sound");
    assert_eq!(
        notes,
        [
            "file 0 of Some(16)",
            "+8",
            "end 7",
            "file 8 of Some(16)",
            "+8",
            "end 7"
        ]
    );
}
