//! Pushes to a registry that breaks, forgets and sends us elsewhere.

mod support;

use std::sync::{Arc, Mutex};

use carrack_registry::{Client, Error, Pushed, Repository, UploadOptions};
use carrack_spec::Reference;
use support::server::{Reply, Request, Server, answer};
use support::{digest, hasty, noise};

fn repository_of(client: &Client, server: &Server) -> Repository {
    let reference: Reference = format!("{}/app", server.host).parse().unwrap();
    client.repository(&reference).unwrap()
}

fn push(server: &Server, bytes: &Vec<u8>, options: &UploadOptions) -> Result<Pushed, Error> {
    repository_of(&hasty().build(), server).push_blob(&digest(bytes), bytes, options)
}

/// What an upload of the server has got so far.
type Got = Arc<Mutex<Vec<u8>>>;

/// A registry that takes one upload. `break_at` says for a request with a body how many
/// of its bytes are kept before the connection breaks.
fn taker(got: &Got, break_at: impl Fn(usize) -> Option<usize> + Send + Sync + 'static) -> Server {
    let got = Arc::clone(got);
    let bodies = Mutex::new(0);
    Server::start(move |request: &Request, _| {
        let mut got = got.lock().unwrap();
        let state = |status: u16, got: &[u8]| {
            let end = got.len().saturating_sub(1);
            answer(
                status,
                &format!("Location: /up/{}\nRange: 0-{end}", got.len()),
                "",
            )
        };
        match (request.method.as_str(), request.path()) {
            ("HEAD", _) => answer(404, "", ""),
            ("POST", _) => {
                got.clear();
                state(202, &got)
            }
            ("GET", _) => state(204, &got),
            _ => {
                if !request.body.is_empty() {
                    let mut bodies = bodies.lock().unwrap();
                    *bodies += 1;
                    if let Some(kept) = break_at(*bodies - 1) {
                        got.extend_from_slice(&request.body[..kept]);
                        return Reply::Close(Vec::new());
                    }
                }
                if let Some(range) = request.field("content-range")
                    && !range.starts_with(&format!("{}-", got.len()))
                {
                    return state(416, &got);
                }
                got.extend_from_slice(&request.body);
                match request.method.as_str() {
                    "PUT" => {
                        let right = request.target.contains(&digest(&got).to_string());
                        answer(if right { 201 } else { 400 }, "", "")
                    }
                    _ => state(202, &got),
                }
            }
        }
    })
}

fn methods(server: &Server) -> Vec<String> {
    server.requests().into_iter().map(|r| r.method).collect()
}

#[test]
fn a_broken_upload_goes_on_where_the_registry_is() {
    let bytes = noise(1 << 20, 1);
    let got = Got::default();
    let server = taker(&got, |body| (body == 0).then_some(300_000));
    assert_eq!(
        push(&server, &bytes, &UploadOptions::default()).unwrap(),
        Pushed::Uploaded
    );
    assert_eq!(*got.lock().unwrap(), bytes);
    assert_eq!(
        methods(&server),
        ["HEAD", "POST", "PUT", "HEAD", "GET", "PATCH", "PUT"]
    );
    let patch = &server.requests()[5];
    assert_eq!(patch.field("content-range"), Some("300000-1048575"));
}

#[test]
fn an_upload_of_which_nothing_arrived_begins_anew() {
    let bytes = noise(1 << 20, 2);
    let got = Got::default();
    let server = taker(&got, |body| (body < 2).then_some(0));
    push(&server, &bytes, &UploadOptions::default()).unwrap();
    assert_eq!(*got.lock().unwrap(), bytes);
    let server = taker(&got, |_| Some(0));
    assert!(push(&server, &bytes, &UploadOptions::default()).is_err());
}

#[test]
fn parts_and_streams_survive_breaks() {
    let bytes = noise(1 << 20, 3);
    let got = Got::default();
    let options = UploadOptions {
        part_bytes: Some(400_000),
        ..UploadOptions::default()
    };
    let server = taker(&got, |body| (body == 1).then_some(100_000));
    push(&server, &bytes, &options).unwrap();
    assert_eq!(*got.lock().unwrap(), bytes);

    let bytes = noise(9 << 20, 4);
    let server = taker(&got, |body| (body % 2 == 0).then_some(1_000_000));
    let repository = repository_of(&hasty().build(), &server);
    let found = repository.push_stream("x", &mut bytes.as_slice()).unwrap();
    assert_eq!(
        (found.digest, found.size),
        (digest(&bytes), bytes.len() as u64)
    );
    assert_eq!(*got.lock().unwrap(), bytes);
}

#[test]
fn a_registry_sets_the_least_size_of_parts() {
    let bytes = noise(1 << 20, 5);
    let got = Got::default();
    let inner = taker(&got, |_| None);
    let host = inner.host.clone();
    // The same registry, with the field in the answer that begins an upload.
    let server = Server::start(move |request, _| match request.method.as_str() {
        "HEAD" => answer(404, "", ""),
        "POST" => answer(
            202,
            &format!("OCI-Chunk-Min-Length: 600000\nLocation: http://{host}/up/0"),
            "",
        ),
        _ => answer(500, "", ""),
    });
    let options = UploadOptions {
        part_bytes: Some(1000),
        ..UploadOptions::default()
    };
    push(&server, &bytes, &options).unwrap();
    assert_eq!(methods(&inner), ["PATCH", "PATCH", "PUT"]);
    assert_eq!(*got.lock().unwrap(), bytes);
}

#[test]
fn an_answer_before_the_end_of_the_body_is_heard() {
    let bytes = noise(8 << 20, 6);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let host = listener.local_addr().unwrap().to_string();
    let location = format!("Location: http://{host}/up");
    let server = Server::start(move |request, _| match request.method.as_str() {
        "HEAD" => answer(404, "", ""),
        _ => answer(202, &location, ""),
    });
    std::thread::spawn(move || {
        use std::io::{Read, Write};
        for stream in listener.incoming().flatten() {
            let mut stream = stream;
            let mut head = [0; 4096];
            let _ = stream.read(&mut head);
            let _ = stream.write_all(b"HTTP/1.1 413 X\r\nContent-Length: 9\r\n\r\ntoo large");
            let _ = stream.shutdown(std::net::Shutdown::Write);
            // Some more is taken, so that the answer is not lost with a reset.
            let mut more = vec![0; 1 << 20];
            let _ = stream.read(&mut more);
            std::thread::sleep(std::time::Duration::from_millis(300));
        }
    });
    let error = push(&server, &bytes, &UploadOptions::default()).unwrap_err();
    assert!(error.to_string().contains("413"), "{error:?}");
}

#[test]
fn an_answer_that_was_lost_does_not_send_everything_again() {
    let bytes = noise(100_000, 7);
    let done = Mutex::new(false);
    let server = Server::start(move |request, _| {
        let mut done = done.lock().unwrap();
        match request.method.as_str() {
            "HEAD" if *done => answer(200, "", ""),
            "HEAD" => answer(404, "", ""),
            "POST" => answer(202, "Location: /up", ""),
            _ => {
                *done = true;
                Reply::Close(Vec::new())
            }
        }
    });
    push(&server, &bytes, &UploadOptions::default()).unwrap();
    assert_eq!(methods(&server), ["HEAD", "POST", "PUT", "HEAD"]);
}

#[test]
fn protocol_errors_are_named() {
    let bytes = noise(1000, 8);
    for (post, patch, part) in [
        (
            answer(202, "", ""),
            answer(202, "", ""),
            "without a Location",
        ),
        (
            answer(202, "Location: ftp://x/", ""),
            answer(202, "", ""),
            "Location of an upload",
        ),
        (
            answer(202, "Location: /up", ""),
            answer(202, "Range: 0-5000", ""),
            "now there are 5001",
        ),
        (
            answer(403, "", r#"{"errors":[{"code":"DENIED"}]}"#),
            answer(202, "", ""),
            "DENIED",
        ),
    ] {
        let server = Server::start(move |request, _| match request.method.as_str() {
            "HEAD" => answer(404, "", ""),
            "POST" => post.clone(),
            _ => patch.clone(),
        });
        let options = UploadOptions {
            part_bytes: Some(100),
            ..UploadOptions::default()
        };
        let error = push(&server, &bytes, &options).unwrap_err();
        assert!(error.to_string().contains(part), "{error}");
    }
}

#[test]
fn a_mount_that_becomes_an_upload_is_used() {
    let bytes = noise(1000, 9);
    let server = Server::start(
        |request, _| match (request.method.as_str(), request.path()) {
            ("HEAD", _) => answer(404, "", ""),
            ("POST", _) => answer(202, "Location: /up?session=1", ""),
            _ => answer(201, "", ""),
        },
    );
    let options = UploadOptions {
        mount_from: vec!["other/app".into()],
        ..UploadOptions::default()
    };
    assert_eq!(push(&server, &bytes, &options).unwrap(), Pushed::Uploaded);
    let asked = server.requests();
    let mount = format!(
        "/v2/app/blobs/uploads/?mount={}&from=other/app",
        digest(&bytes)
    );
    assert_eq!(asked[1].target, mount);
    assert_eq!(
        asked[2].target,
        format!("/up?session=1&digest={}", digest(&bytes))
    );
}
