//! Strangers at the learner's port: wrong tokens and certificates, plain HTTP and garbage, floods. Each is answered with what is
//! wrong, and harms nobody else. And those who belong get in.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "support/certificates.rs"]
mod certificates;
mod support;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::time::Duration;

use certificates::{Authority, Validity};
use impresario_common::wire::v1;
use impresario_common::wire::v1::learner_client::LearnerClient;
use support::{Process, assert_balanced, run, start, start_actor, start_learner, summary, wait_until};

const TOKEN: &str = "correct-horse-battery-staple-0123456789";

/// A run that is over soon.
const BRIEF: [&str; 4] = ["--until-return", "never", "--steps", "20000"];

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn write_token(folder: &Path, name: &str, token: &str) -> String {
    let file = folder.join(name);
    std::fs::write(&file, format!("{token}\n")).unwrap();
    path(&file).into()
}

/// An actor's error, after it has given up at once.
fn refused(url: &str, args: &[&str]) -> String {
    let ended = start_actor(url, &[args, &["--give-up-after", "20"]].concat()).end();
    assert_ne!(ended.code(), 0, "{}", ended.stderr);
    let error = ended.stderr.lines().find(|line| line.starts_with("error: "));
    error.unwrap_or_else(|| panic!("no error:\n{}", ended.stderr)).to_owned()
}

#[test]
fn a_learner_listens_beyond_loopback_only_with_a_token_with_tls_or_when_told_to() {
    let folder = tempfile::tempdir().unwrap();
    let run_dir = folder.path().join("run");
    for flag in ["--listen", "--metrics-listen"] {
        let ended = run(&["learner", flag, "0.0.0.0:0", "--run-dir", path(&run_dir)]);
        assert_eq!(ended.code(), 64, "{}", ended.stderr);
        for expected in [flag, "--token-file", "IMPRESARIO_TOKEN", "--insecure"] {
            assert!(ended.stderr.contains(expected), "{}", ended.stderr);
        }
        assert!(!run_dir.exists(), "it is refused before anything is made");
    }
    let authority = Authority::new(folder.path(), "authority");
    let own = authority.sign("localhost", Validity::Valid);
    let token = write_token(folder.path(), "token", TOKEN);
    let cases: [(&[&str], &str); 3] = [
        (&["--insecure"], "anyone who can reach"),
        (&["--token-file", &token], "unencrypted"),
        (&["--tls-cert", &own.cert, "--tls-key", &own.key], "anyone may join"),
    ];
    for (index, (flags, warning)) in cases.into_iter().enumerate() {
        let run_dir = folder.path().join(format!("run-{index}"));
        let fixed = ["learner", "--listen", "0.0.0.0:0", "--run-dir", path(&run_dir)];
        let mut learner = start(&[&fixed[..], flags].concat());
        learner.wait_for("listening", |line| line.contains("learner listens on").then_some(()));
        assert!(learner.log().contains(warning), "{}", learner.log());
        learner.signal("TERM");
        assert_eq!(learner.end().code(), 0);
    }
}

#[test]
fn a_token_lets_those_in_who_have_it_and_appears_nowhere() {
    let folder = tempfile::tempdir().unwrap();
    let run_dir = folder.path().join("run");
    let token = write_token(folder.path(), "token", TOKEN);
    let wrong = write_token(folder.path(), "wrong", "another-horse-battery-staple-0123456789");
    let (mut learner, url) = start_learner(&run_dir, &[&BRIEF[..], &["--token-file", &token]].concat());
    let error = refused(&url, &[]);
    assert!(error.contains("asks for a token") && error.contains("--token-file"), "{error}");
    let error = refused(&url, &["--token-file", &wrong]);
    assert!(error.contains("not this learner's"), "{error}");
    wait_until("the learner says so", || learner.log().contains("refused a call from 127.0.0.1"));
    assert!(learner.is_running());
    // Everything that can be logged is, and the token comes from either place.
    let loud = [("RUST_LOG", "trace")];
    let by_file = support::start_with(&["actor", "--learner", &url, "--token-file", &token], &loud);
    let shown = [("RUST_LOG", "trace"), ("IMPRESARIO_TOKEN", TOKEN)];
    let by_variable = support::start_with(&["actor", "--learner", &url], &shown);
    for process in [&learner, &by_file, &by_variable] {
        let listed = std::fs::read_to_string(format!("/proc/{}/cmdline", process.pid())).unwrap();
        assert!(!listed.contains(TOKEN));
    }
    let mut logs = vec![];
    for process in [by_file, by_variable, learner] {
        let ended = process.end();
        assert_eq!(ended.code(), 0, "{}", ended.stderr);
        logs.push(ended.stderr + &ended.stdout);
    }
    assert!(logs[0].contains("TRACE"), "the log is loud");
    assert!(!logs.iter().any(|log| log.contains(TOKEN)));
    assert_balanced(&summary(&run_dir));
    for file in walk(&run_dir) {
        let bytes = std::fs::read(&file).unwrap();
        let found = bytes.windows(TOKEN.len()).any(|window| window == TOKEN.as_bytes());
        assert!(!found, "{} holds the token", file.display());
    }
}

/// All files below `folder`.
fn walk(folder: &Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { walk(&path) } else { vec![path] }).collect()
}

#[test]
fn a_learners_own_log_does_not_show_the_token_however_loud() {
    let folder = tempfile::tempdir().unwrap();
    let token = write_token(folder.path(), "token", TOKEN);
    let run_dir = folder.path().join("run");
    let fixed = ["learner", "--listen", "127.0.0.1:0", "--run-dir", path(&run_dir), "--token-file", &token];
    let mut learner = support::start_with(&fixed, &[("RUST_LOG", "trace")]);
    let url = learner.wait_for("listening", |line| {
        Some(line.split_once("actor --learner ")?.1.split('`').next()?.to_owned())
    });
    let ended = run(&["health", "--learner", &url, "--token-file", &token]);
    assert_eq!(ended.code(), 0, "{}", ended.stderr);
    let actor = start_actor(&url, &["--token-file", &token]);
    learner.wait_for("the actor", |line| line.contains("actor joined").then_some(()));
    actor.signal("TERM");
    assert_eq!(actor.end().code(), 0);
    learner.signal("TERM");
    let ended = learner.end();
    assert_eq!(ended.code(), 0);
    assert!(ended.stderr.contains("TRACE") && ended.stderr.contains("Headers"), "the log is loud");
    assert!(!ended.stderr.contains(TOKEN));
}

/// `url` as TLS has it.
fn secured(url: &str) -> String {
    let port = url.rsplit_once(':').unwrap().1;
    format!("https://localhost:{port}")
}

#[test]
fn tls_lets_those_in_who_trust_the_learner_and_tells_the_others_why_not() {
    let folder = tempfile::tempdir().unwrap();
    let run_dir = folder.path().join("run");
    let (authority, stranger) =
        (Authority::new(folder.path(), "ours"), Authority::new(folder.path(), "theirs"));
    let own = authority.sign("localhost", Validity::Valid);
    let tls = ["--tls-cert", &own.cert, "--tls-key", &own.key];
    let (learner, url) = start_learner(&run_dir, &[&BRIEF[..], &tls].concat());
    assert!(learner.log().contains("actor --learner https://"), "{}", learner.log());
    let (plain, url) = (url.replace("https://", "http://"), secured(&url));
    for (url, args, expected) in [
        (&url, &["--tls-ca", &stranger.ca()][..], "not signed by an authority in --tls-ca"),
        (&url, &[], "https:// needs --tls-ca"),
        (&url, &["--tls-ca", &authority.ca(), "--tls-domain", "elsewhere"], "for another name"),
        (&url, &["--tls-ca", &own.key], "holds no certificate"),
        (&plain, &[], "speaks TLS only: write https://"),
        (&plain, &["--tls-ca", &authority.ca()], "go with an https:// address"),
    ] {
        let error = refused(url, args);
        assert!(error.contains(expected), "{args:?}: {error}");
    }
    let health = |url: &str, args: &[&str]| run(&[&["health", "--learner", url], args].concat());
    assert_eq!(health(&url, &["--tls-ca", &authority.ca()]).code(), 0);
    let strange = health(&url, &["--tls-ca", &stranger.ca()]);
    assert_eq!(strange.code(), 1);
    assert!(strange.stderr.contains("not signed by"), "{}", strange.stderr);
    let plainly = health(&plain, &[]);
    assert_eq!(plainly.code(), 1);
    assert!(plainly.stderr.contains("speaks TLS only"), "{}", plainly.stderr);
    let by_name = start_actor(&url, &["--tls-ca", &authority.ca()]);
    let by_number = start_actor(
        &url.replace("localhost", "127.0.0.1"),
        &["--tls-ca", &authority.ca(), "--tls-domain", "localhost"],
    );
    for process in [by_name, by_number, learner] {
        let ended = process.end();
        assert_eq!(ended.code(), 0, "{}", ended.stderr);
    }
    assert_balanced(&summary(&run_dir));
}

#[test]
fn an_expired_certificate_is_named_and_so_is_a_learner_without_tls() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new(folder.path(), "ours");
    let trust = authority.ca();
    let expired = authority.sign("localhost", Validity::Expired);
    let tls = ["--tls-cert", &expired.cert, "--tls-key", &expired.key];
    let (_learner, url) = start_learner(&folder.path().join("expired"), &tls);
    let error = refused(&secured(&url), &["--tls-ca", &trust]);
    assert!(error.contains("the learner's certificate has expired"), "{error}");
    let (_plain, url) = start_learner(&folder.path().join("plain"), &[]);
    let error = refused(&secured(&url), &["--tls-ca", &trust]);
    assert!(error.contains("does not speak TLS: write http://"), "{error}");
    // What cannot be used is refused before it starts.
    let valid = authority.sign("localhost", Validity::Valid);
    for (cert, key, expected) in [
        (&valid.cert, &expired.key, "does not go with --tls-key"),
        (&valid.key, &valid.key, "holds no certificate"),
        (&valid.cert, &valid.cert, "holds no private key"),
    ] {
        let ended = run(&["learner", "--listen", "127.0.0.1:0", "--tls-cert", cert, "--tls-key", key]);
        assert_eq!(ended.code(), 64, "{}", ended.stderr);
        assert!(ended.stderr.contains(expected), "{}", ended.stderr);
    }
}

#[test]
fn a_learner_that_asks_for_certificates_gets_them() {
    let folder = tempfile::tempdir().unwrap();
    let run_dir = folder.path().join("run");
    let (authority, stranger) =
        (Authority::new(folder.path(), "ours"), Authority::new(folder.path(), "theirs"));
    let own = authority.sign("localhost", Validity::Valid);
    let mutual = ["--tls-cert", &own.cert, "--tls-key", &own.key, "--tls-client-ca", &authority.ca()];
    let (mut learner, url) = start_learner(&run_dir, &[&BRIEF[..], &mutual].concat());
    let url = secured(&url);
    let trust = authority.ca();
    let trust = ["--tls-ca", trust.as_str()];
    let error = refused(&url, &trust);
    assert!(error.contains("asks for a certificate: give --tls-cert"), "{error}");
    for (signed, expected) in [
        (stranger.sign("localhost", Validity::Valid), "not signed by an authority in its --tls-client-ca"),
        (authority.sign("localhost", Validity::Expired), "the certificate in --tls-cert has expired"),
    ] {
        let error =
            refused(&url, &[&trust[..], &["--tls-cert", &signed.cert, "--tls-key", &signed.key]].concat());
        assert!(error.contains(expected), "{error}");
    }
    assert!(learner.is_running());
    assert!(learner.log().contains("no TLS with it"), "{}", learner.log());
    let mine = authority.sign("actor", Validity::Valid);
    let shown = [&trust[..], &["--tls-cert", &mine.cert, "--tls-key", &mine.key]].concat();
    let without = run(&[&["health", "--learner", &url][..], &trust].concat());
    assert_eq!(without.code(), 1);
    assert!(without.stderr.contains("asks for a certificate"), "{}", without.stderr);
    assert_eq!(run(&[&["health", "--learner", &url][..], &shown].concat()).code(), 0);
    let actor = start_actor(&url, &shown);
    for process in [actor, learner] {
        let ended = process.end();
        assert_eq!(ended.code(), 0, "{}", ended.stderr);
    }
    assert_balanced(&summary(&run_dir));
}

/// What a learner answers to `bytes` on a connection of its own, until it closes that.
fn answer(url: &str, bytes: &[u8]) -> Vec<u8> {
    let mut socket = TcpStream::connect(url.split_once("://").unwrap().1).unwrap();
    socket.set_read_timeout(Some(support::DEADLINE)).unwrap();
    socket.write_all(bytes).unwrap();
    let mut answer = vec![];
    // It may be reset after the answer.
    let _ = socket.read_to_end(&mut answer);
    answer
}

#[test]
fn garbage_on_the_port_is_answered_and_harms_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let run_dir = folder.path().join("run");
    let (mut learner, url) = start_learner(&run_dir, &BRIEF);
    let mut noise = vec![0u8; 1 << 16];
    let mut state = 0x9e37_79b9_u32;
    noise.fill_with(|| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    });
    noise[0] = 0xff;
    for garbage in [&noise[..], b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"PRI * HTTP/3.0\r\n"] {
        let answer = answer(&url, garbage);
        let text = String::from_utf8_lossy(&answer);
        assert!(text.starts_with("HTTP/1.1 400") && text.contains("speaks gRPC"), "{text}");
    }
    let text = answer(&url, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03");
    assert!(String::from_utf8_lossy(&text).contains("does not speak TLS"));
    // Noise after a beginning that is right, and connections that end early or say nothing.
    answer(&url, &[b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &noise[..]].concat());
    let address = url.trim_start_matches("http://");
    drop(TcpStream::connect(address).unwrap());
    let _silent: Vec<_> = (0..20).map(|_| TcpStream::connect(address).unwrap()).collect();
    assert!(learner.is_running());
    assert!(!learner.log().contains("panicked"), "{}", learner.log());
    let actor = start_actor(&url, &[]);
    for process in [actor, learner] {
        let ended = process.end();
        assert_eq!(ended.code(), 0, "{}", ended.stderr);
    }
    assert_balanced(&summary(&run_dir));
}

#[test]
fn garbage_on_a_port_with_tls_is_answered_too() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new(folder.path(), "ours");
    let own = authority.sign("localhost", Validity::Valid);
    let tls = ["--tls-cert", own.cert.as_str(), "--tls-key", &own.key];
    let (mut learner, url) = start_learner(&folder.path().join("run"), &tls);
    let text = answer(&url, b"GET / HTTP/1.1\r\n\r\n");
    assert!(text.starts_with(b"HTTP/1.1 400"), "{}", String::from_utf8_lossy(&text));
    // What is TLS, but no client's beginning, is answered by an alert.
    let alert = answer(&url, b"\x16\x03\x01\x00\x04\x02\x00\x00\x00");
    assert_eq!(alert.first(), Some(&0x15), "{alert:?}");
    assert!(learner.is_running());
    assert_eq!(run(&["health", "--learner", &secured(&url), "--tls-ca", &authority.ca()]).code(), 0);
}

/// A learner with small limits.
fn limited(run_dir: &Path, limits: &[&str]) -> (Process, String) {
    let set = limits.iter().flat_map(|limit| ["--set", limit]);
    let args: Vec<_> = BRIEF.into_iter().chain(set).collect();
    start_learner(run_dir, &args)
}

#[test]
fn connections_beyond_the_limit_are_turned_away_and_welcome_later() {
    let folder = tempfile::tempdir().unwrap();
    let run_dir = folder.path().join("run");
    let (learner, url) = limited(&run_dir, &["limits.connections=3"]);
    // Connections that live: they answer when they are asked whether they do.
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let connect = || LearnerClient::connect(url.clone());
    let held: Vec<_> = (0..3).map(|_| runtime.block_on(connect()).unwrap()).collect();
    for mut client in held.clone() {
        runtime.block_on(client.describe(v1::DescribeRequest {})).unwrap();
    }
    let text = answer(&url, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    let text = String::from_utf8_lossy(&text).into_owned();
    assert!(text.contains("as many connections as limits.connections permits"), "{text}");
    let mut waiting = start_actor(&url, &[]);
    waiting.wait_for("what keeps it out", |line| line.contains("limits.connections").then_some(()));
    assert!(learner.log().contains("limits.connections is 3"), "{}", learner.log());
    drop((held, runtime));
    for process in [waiting, learner] {
        let ended = process.end();
        assert_eq!(ended.code(), 0, "{}", ended.stderr);
    }
    assert_balanced(&summary(&run_dir));
}

#[test]
fn actors_that_join_too_fast_come_again_later() {
    let folder = tempfile::tempdir().unwrap();
    let run_dir = folder.path().join("run");
    let (learner, url) =
        limited(&run_dir, &["limits.joins_per_second=1", "learner.wait_for_actors=3", "run.steps=60000"]);
    let actors = [start_actor(&url, &[]), start_actor(&url, &[]), start_actor(&url, &[])];
    let mut told = 0;
    for actor in actors {
        let ended = actor.end();
        assert_eq!(ended.code(), 0, "{}", ended.stderr);
        told += usize::from(ended.stderr.contains("limits.joins_per_second: come again later"));
    }
    assert!(told >= 1, "nobody was asked to wait");
    assert_eq!(learner.end().code(), 0);
    assert_balanced(&summary(&run_dir));
}

#[test]
fn an_actor_has_few_unrolls_in_flight_if_few_are_permitted_and_the_run_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let run_dir = folder.path().join("run");
    let free =
        ["learner.max_policy_lag=unlimited", "limits.unrolls_in_flight=1", "report.interval_seconds=0.05"];
    let (learner, url) = limited(&run_dir, &[&free[..], &["learner.batch_size=64"]].concat());
    // A batch needs several unrolls of an actor: more than one is let in where the trainer would wait for ever.
    let actor = start_actor(&url, &["--envs", "8", "--workers", "2"]);
    for process in [actor, learner] {
        let ended = process.end();
        assert_eq!(ended.code(), 0, "{}", ended.stderr);
    }
    let metrics = std::fs::read_to_string(run_dir.join("metrics.jsonl")).unwrap();
    let lines = metrics.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let most = lines.map(|line| line["queue"]["unrolls"].as_u64().unwrap()).max().unwrap();
    // 64 columns are 16 unrolls of 4 copies; one more may wait when they are complete.
    assert!(most <= 17, "{most} unrolls waited");
    assert_balanced(&summary(&run_dir));
}

#[test]
fn an_actor_whose_unrolls_exceed_the_message_limit_is_told_what_to_change() {
    let folder = tempfile::tempdir().unwrap();
    let (_learner, url) = limited(
        &folder.path().join("run"),
        &["limits.message_bytes=65536", "learner.max_policy_lag=unlimited"],
    );
    let error = refused(&url, &["--envs", "512", "--workers", "1"]);
    assert!(
        error.contains("more than the 65536 of a message") && error.contains("limits.message_bytes"),
        "{error}"
    );
}

/// What the operations port answers to a GET of `path`.
fn get(address: &str, path: &str, authorization: &str) -> String {
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\n{authorization}Connection: close\r\n\r\n");
    String::from_utf8(answer(&format!("http://{address}"), request.as_bytes())).unwrap()
}

#[test]
fn metrics_are_told_to_whoever_has_the_token_and_health_to_everyone() {
    let folder = tempfile::tempdir().unwrap();
    let token = write_token(folder.path(), "token", TOKEN);
    let fast = ["--set", "report.interval_seconds=0.1", "--until-return", "never", "--steps", "1000000000"];
    let flags = ["--token-file", token.as_str(), "--metrics-listen", "127.0.0.1:0"];
    let (mut learner, url) = start_learner(&folder.path().join("run"), &[&fast[..], &flags].concat());
    let metrics = learner.wait_for("the metrics' address", |line| {
        let event: serde_json::Value = serde_json::from_str(line).ok()?;
        Some(event["metrics_address"].as_str()?.to_owned())
    });
    let authorization = format!("Authorization: Bearer {TOKEN}\r\n");
    assert!(get(&metrics, "/metrics", "").starts_with("HTTP/1.1 401"));
    assert!(
        get(&metrics, "/metrics", "Authorization: Bearer wrong-wrong-wrong\r\n").starts_with("HTTP/1.1 401")
    );
    let page = get(&metrics, "/metrics", &authorization);
    assert!(page.starts_with("HTTP/1.1 200") && page.contains("impresario_produced_steps_total 0"), "{page}");
    // The learner's own port, the operations port; with and without the token, which health does not ask for.
    for (url, args) in [
        (url.clone(), vec![]),
        (url.clone(), vec!["--token-file", &token]),
        (format!("http://{metrics}"), vec![]),
    ] {
        let ended = run(&[&["health", "--learner", &url][..], &args].concat());
        assert_eq!((ended.code(), ended.stdout.trim()), (0, "serving"), "{}", ended.stderr);
    }
    let _actor = start_actor(&url, &["--token-file", &token]);
    wait_until("training shows in the metrics", || {
        let page = get(&metrics, "/metrics", &authorization);
        let trained = page.lines().find_map(|line| line.strip_prefix("impresario_trained_steps_total "));
        trained.is_some_and(|steps| steps.parse::<u64>().unwrap() > 10_000)
            && page.contains("impresario_verdict{bottleneck=")
            && page.contains("impresario_policy_lag_updates{statistic=\"max\"}")
            && page.contains("impresario_actors_connected 1")
    });
    learner.signal("TERM");
    assert_eq!(learner.end().code(), 0);
    let gone = run(&["health", "--learner", &url, "--timeout", "2"]);
    assert_eq!(gone.code(), 1);
    assert!(gone.stderr.contains("Connection refused"), "{}", gone.stderr);
}

#[test]
fn a_learner_that_does_not_answer_is_not_healthy() {
    let folder = tempfile::tempdir().unwrap();
    let (learner, url) = start_learner(&folder.path().join("run"), &[]);
    assert_eq!(run(&["health", "--learner", &url]).code(), 0);
    learner.signal("STOP");
    let begun = std::time::Instant::now();
    let ended = run(&["health", "--learner", &url, "--timeout", "1"]);
    assert_eq!(ended.code(), 1, "{}", ended.stderr);
    assert!(begun.elapsed() < Duration::from_secs(60), "it has a deadline");
    learner.signal("CONT");
    assert_eq!(run(&["health", "--learner", &url, "--timeout", "60"]).code(), 0);
    assert_eq!(run(&["health", "--learner", "http://"]).code(), 64);
}
