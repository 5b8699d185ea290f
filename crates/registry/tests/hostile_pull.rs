//! Pulls from a registry that lies, stalls, breaks and loops.

mod support;

use std::io::Read;
use std::sync::Arc;
use std::time::{Duration, Instant};

use carrack_registry::{Blob, Client, Error, ErrorKind, HttpError, Repository, Which};
use carrack_spec::Reference;
use carrack_spec::image::{Descriptor, Platform, media_type};
use support::server::{Reply, Request, Server, answer, head};
use support::{digest, hasty, noise};

fn repository_of(client: &Client, server: &Server) -> Repository {
    let reference: Reference = format!("{}/app", server.host).parse().unwrap();
    client.repository(&reference).unwrap()
}

fn repository(server: &Server) -> Repository {
    repository_of(&hasty().build(), server)
}

fn descriptor(bytes: &[u8]) -> Descriptor {
    Descriptor::new("x", digest(bytes), bytes.len() as u64)
}

fn read_all(mut blob: Blob) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    match blob.read_to_end(&mut bytes) {
        Ok(_) => Ok(bytes),
        Err(error) => Err(error.downcast::<Error>().unwrap()),
    }
}

fn pull(server: &Server, bytes: &[u8]) -> Result<Vec<u8>, Error> {
    read_all(repository(server).blob(&descriptor(bytes))?)
}

/// The first byte that a request wants.
fn range_start(request: &Request) -> usize {
    let range = request.field("range").unwrap_or("bytes=0-");
    range["bytes=".len()..]
        .trim_end_matches('-')
        .parse()
        .unwrap()
}

/// An answer to a range request that promises everything and gives `count` bytes.
fn part(bytes: &[u8], request: &Request, count: usize) -> Vec<u8> {
    let from = range_start(request);
    let (status, range) = match from {
        0 => (200, String::new()),
        _ => (
            206,
            format!(
                "Content-Range: bytes {from}-{}/{}",
                bytes.len() - 1,
                bytes.len()
            ),
        ),
    };
    let length = bytes.len() - from;
    let mut reply = head(status, &format!("Content-Length: {length}\n{range}"));
    reply.extend_from_slice(&bytes[from..(from + count).min(bytes.len())]);
    reply
}

#[test]
fn a_blob_goes_on_where_the_connection_broke() {
    let bytes = noise(1 << 20, 1);
    let content = bytes.clone();
    let server = Server::start(move |request, _| Reply::Close(part(&content, request, 400_000)));
    assert_eq!(pull(&server, &bytes).unwrap(), bytes);
    let starts: Vec<usize> = server.requests().iter().map(range_start).collect();
    assert_eq!(starts, [0, 400_000, 800_000]);
}

#[test]
fn a_blob_goes_on_after_a_stall() {
    let bytes = noise(1 << 20, 2);
    let content = bytes.clone();
    let server = Server::start(move |request, number| match number {
        0 => Reply::Stall(part(&content, request, 500_000)),
        _ => Reply::Bytes(part(&content, request, usize::MAX >> 1)),
    });
    assert_eq!(pull(&server, &bytes).unwrap(), bytes);
    assert_eq!(server.requests().len(), 2);
}

#[test]
fn an_ignored_range_is_read_again_from_the_start() {
    let bytes = noise(1 << 20, 3);
    let content = bytes.clone();
    let server = Server::start(move |_, number| match number {
        0 => Reply::Close(part(&content, &Request::default(), 500_000)),
        _ => answer(200, "", &content),
    });
    assert_eq!(pull(&server, &bytes).unwrap(), bytes);
}

#[test]
fn a_range_that_is_another_one_is_refused() {
    let bytes = noise(1 << 20, 4);
    let content = bytes.clone();
    let server = Server::start(move |request, number| match number {
        0 => Reply::Close(part(&content, request, 500_000)),
        _ => answer(
            206,
            "Content-Range: bytes 499999-1048575/1048576",
            &content[499_999..],
        ),
    });
    let error = pull(&server, &bytes).unwrap_err();
    assert!(
        error.to_string().contains("bytes from 499999 on came"),
        "{error}"
    );
    assert_eq!(error.kind(), ErrorKind::Untrusted);
}

#[test]
fn a_server_that_never_goes_on_is_given_up() {
    let bytes = noise(1 << 20, 5);
    let content = bytes.clone();
    let server = Server::start(move |request, _| Reply::Stall(part(&content, request, 10)));
    let begun = Instant::now();
    let error = pull(&server, &bytes).unwrap_err();
    let stalled = matches!(
        &error,
        Error::Http {
            source: HttpError::Stalled(_),
            ..
        }
    );
    assert!(stalled, "{error:?}");
    assert!(begun.elapsed() < Duration::from_secs(10));
    assert_eq!(server.requests().len(), 3);
}

#[test]
fn a_drip_of_bytes_does_not_count_as_progress_for_ever() {
    let bytes = noise(1 << 20, 6);
    let content = bytes.clone();
    let server = Server::start(move |request, _| Reply::Close(part(&content, request, 100)));
    assert!(pull(&server, &bytes).is_err());
    assert_eq!(server.requests().len(), 3);
}

#[test]
fn wrong_sizes_are_found_before_or_after_the_bytes() {
    let bytes = noise(5000, 7);
    let long = [bytes.clone(), b"x".to_vec()].concat();
    let chunked = |content: &[u8]| {
        let mut reply = head(200, "Transfer-Encoding: chunked");
        for chunk in content.chunks(1000) {
            reply.extend(format!("{:x};ext=1\r\n", chunk.len()).into_bytes());
            reply.extend_from_slice(chunk);
            reply.extend_from_slice(b"\r\n");
        }
        reply.extend_from_slice(b"0\r\nTrailer: x\r\n\r\n");
        Reply::Bytes(reply)
    };
    for reply in [
        answer(200, "", &long),
        answer(200, "", &bytes[1..]),
        chunked(&long),
        chunked(&bytes[1..]),
        Reply::Close([head(200, ""), long.clone()].concat()),
        Reply::Close([head(200, ""), bytes[1..].to_vec()].concat()),
    ] {
        let server = Server::start(move |_, _| reply.clone());
        let error = pull(&server, &bytes).unwrap_err();
        assert!(
            matches!(error, Error::Size { expected: 5000, .. }),
            "{error:?}"
        );
    }
    for reply in [
        chunked(&bytes),
        Reply::Close([head(200, ""), bytes.clone()].concat()),
    ] {
        let server = Server::start(move |_, _| reply.clone());
        assert_eq!(pull(&server, &bytes).unwrap(), bytes);
    }
}

#[test]
fn a_wrong_digest_is_found_at_the_end() {
    let bytes = noise(5000, 8);
    let other = noise(5000, 20);
    let server = Server::start(move |_, _| answer(200, "", &other));
    let mut blob = repository(&server)
        .blob(&descriptor(&bytes))
        .unwrap()
        .verified();
    let error = blob.read_to_end(&mut Vec::new()).unwrap_err();
    assert!(error.to_string().contains("not what its digest"), "{error}");
}

#[test]
fn an_encoded_blob_is_refused() {
    let server = Server::start(|_, _| answer(200, "Content-Encoding: gzip", b"12345"));
    let error = pull(&server, b"12345").unwrap_err();
    assert!(error.to_string().contains("encoded"), "{error}");
}

fn manifest_error(which: Which<'_>, reply: Reply) -> Error {
    let server = Server::start(move |_, _| reply.clone());
    repository(&server).manifest(which).unwrap_err()
}

#[test]
fn documents_that_lie_are_refused() {
    let manifest = br#"{"schemaVersion":2,"config":{"digest":"x"},"layers":[]}"#;
    let wanted = digest(b"something else");
    let by_digest = manifest_error(Which::Digest(&wanted), answer(200, "", manifest));
    assert!(matches!(by_digest, Error::Digest { .. }), "{by_digest:?}");
    let claim = format!("Docker-Content-Digest: {wanted}");
    let by_tag = manifest_error(Which::Tag("v1"), answer(200, &claim, manifest));
    assert!(matches!(by_tag, Error::Digest { .. }), "{by_tag:?}");

    let both = br#"{"schemaVersion":2,"config":{},"layers":[],"manifests":[]}"#;
    let index = format!("Content-Type: {}", media_type::INDEX);
    let error = manifest_error(Which::Tag("v1"), answer(200, &index, both));
    assert!(matches!(error, Error::Ambiguous(_)), "{error:?}");
    let error = manifest_error(Which::Tag("v1"), answer(200, &index, manifest));
    assert!(matches!(error, Error::Ambiguous(_)), "{error:?}");
    let error = manifest_error(
        Which::Tag("v1"),
        answer(200, "Content-Type: text/html", "<html>"),
    );
    assert!(matches!(error, Error::MediaType(..)), "{error:?}");
    let old = answer(200, "", r#"{"schemaVersion":1,"fsLayers":[]}"#);
    let error = manifest_error(Which::Tag("v1"), old);
    assert!(error.to_string().contains("schema 1"), "{error}");
    assert_eq!(error.kind(), ErrorKind::Unsupported);
}

#[test]
fn giant_documents_are_not_read() {
    let announced = Reply::Stall(head(200, "Content-Length: 99999999999"));
    let endless = Reply::Endless(
        head(200, "Transfer-Encoding: chunked"),
        [b"10000\r\n".to_vec(), vec![b' '; 0x10000], b"\r\n".to_vec()].concat(),
    );
    for reply in [announced, endless] {
        let error = manifest_error(Which::Tag("v1"), reply);
        assert!(matches!(error, Error::TooLarge { .. }), "{error:?}");
    }
}

#[test]
fn garbage_is_an_error_and_never_a_hang() {
    let long = format!("HTTP/1.1 200 OK\r\nX: {}", "a".repeat(1 << 20));
    let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "X: y\r\n".repeat(1000));
    let interim = "HTTP/1.1 100 Continue\r\n\r\n".repeat(1000);
    for garbage in [
        "",
        "SSH-2.0-OpenSSH\r\n",
        "HTTP/1.1\r\n\r\n",
        "HTTP/9.9 200 OK\r\n\r\n",
        "HTTP/1.1 99999 OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhelloworld\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel",
        "HTTP/1.1 200 OK\r\nNo colon\r\n\r\n",
        "\u{0}\u{0}\u{0}\u{0}",
        &interim,
        &many,
        &long,
    ] {
        let bytes = garbage.as_bytes().to_vec();
        let server = Server::start(move |_, _| Reply::Close(bytes.clone()));
        let begun = Instant::now();
        let error = repository(&server).manifest(Which::Tag("v1")).unwrap_err();
        let shown: String = garbage.chars().take(60).collect();
        assert!(begun.elapsed() < Duration::from_secs(4), "{shown:?}");
        assert!(matches!(error, Error::Http { .. }), "{shown:?}: {error:?}");
    }
}

#[test]
fn redirects_are_followed_and_limited() {
    let bytes = noise(1000, 10);
    let content = bytes.clone();
    let cdn = Server::start(move |_, _| answer(200, "", &content));
    let to = format!("Location: http://{}/signed?X-Signature=s", cdn.host);
    let server = Server::start(move |_, _| answer(307, &to, "moved"));
    assert_eq!(pull(&server, &bytes).unwrap(), bytes);

    let server =
        Server::start(|request, _| answer(302, &format!("Location: {}x", request.target), ""));
    let error = pull(&server, &bytes).unwrap_err();
    assert!(matches!(error, Error::Redirect { .. }), "{error:?}");
    assert_eq!(server.requests().len(), 9);

    for location in [
        "",
        "Location: ftp://x/",
        "Location: http://u:p@x/",
        "Location: http://[/",
    ] {
        let server = Server::start(move |_, _| answer(302, location, ""));
        let error = pull(&server, &bytes).unwrap_err();
        assert!(
            matches!(error, Error::Redirect { .. }),
            "{location}: {error:?}"
        );
    }
}

#[test]
fn passing_troubles_are_met_with_another_try() {
    let bytes = noise(1000, 11);
    let content = bytes.clone();
    let server = Server::start(move |_, number| match number {
        0 => answer(
            503,
            "",
            r#"{"errors":[{"code":"UNAVAILABLE","message":"later"}]}"#,
        ),
        1 => Reply::Close(Vec::new()),
        _ => answer(200, "", &content),
    });
    assert_eq!(pull(&server, &bytes).unwrap(), bytes);

    let server = Server::start(|_, _| {
        answer(
            500,
            "",
            r#"{"errors":[{"code":"UNKNOWN","message":"disk full"}]}"#,
        )
    });
    let error = pull(&server, &bytes).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("500 Internal Server Error: UNKNOWN: disk full"),
        "{error}"
    );
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert_eq!(server.requests().len(), 3);
}

#[test]
fn retry_after_is_honoured_within_its_limit() {
    let bytes = noise(1000, 12);
    let content = bytes.clone();
    let server = Server::start(move |_, number| match number {
        0 => answer(429, "Retry-After: 1", ""),
        _ => answer(200, "", &content),
    });
    let begun = Instant::now();
    assert_eq!(pull(&server, &bytes).unwrap(), bytes);
    assert!(begun.elapsed() >= Duration::from_secs(1));

    let fields = "Retry-After: 3600\nRateLimit-Limit: 100;w=21600\nRateLimit-Remaining: 0;w=21600";
    let server = Server::start(move |_, _| {
        answer(429, fields, r#"{"errors":[{"code":"TOOMANYREQUESTS"}]}"#)
    });
    let begun = Instant::now();
    let error = pull(&server, &bytes).unwrap_err();
    assert!(begun.elapsed() < Duration::from_secs(1));
    let text = "(limit: 100 requests in 6 h, 0 left, try again in 60 min)";
    assert!(error.to_string().contains(text), "{error}");
    assert_eq!(error.kind(), ErrorKind::RateLimited);
    assert_eq!(server.requests().len(), 1);
}

#[test]
fn head_is_enough_to_resolve_and_get_stands_in_for_it() {
    let manifest = br#"{"schemaVersion":2,"config":{"digest":"x"},"layers":[]}"#;
    let fields = format!(
        "Content-Type: {}; charset=utf-8\nDocker-Content-Digest: {}\nContent-Length: {}",
        media_type::MANIFEST,
        digest(manifest),
        manifest.len()
    );
    let server = Server::start(move |_, _| Reply::Bytes(head(200, &fields)));
    let found = repository(&server).resolve(Which::Tag("v1")).unwrap();
    let wanted = Descriptor::new(
        media_type::MANIFEST,
        digest(manifest),
        manifest.len() as u64,
    );
    assert_eq!(found, wanted);
    assert_eq!(server.requests().len(), 1);

    for refusal in [405, 200] {
        let server = Server::start(move |request, _| match request.method.as_str() {
            "HEAD" => Reply::Bytes(head(refusal, "Content-Length: 0")),
            _ => answer(200, "", manifest),
        });
        assert_eq!(
            repository(&server).resolve(Which::Tag("v1")).unwrap(),
            wanted
        );
    }
}

#[test]
fn an_index_without_our_platform_names_what_there_is() {
    let index = r#"{"schemaVersion":2,"manifests":[
        {"mediaType":"m","digest":"sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa","size":1,"platform":{"os":"plan9","architecture":"mips"}}]}"#;
    let server = Server::start(move |_, _| answer(200, "", index));
    let document = repository(&server).manifest(Which::Tag("v1")).unwrap();
    let error = document.choose(&Platform::native()).unwrap_err();
    assert!(error.to_string().contains("plan9/mips"), "{error}");
}

#[test]
fn connections_are_used_again_and_replaced_when_the_server_closed_them() {
    let bytes = noise(1000, 13);
    let content = bytes.clone();
    let server = Server::start(move |_, _| answer(200, "", &content));
    let client = hasty().build();
    for _ in 0..10 {
        let blob = repository_of(&client, &server)
            .blob(&descriptor(&bytes))
            .unwrap();
        assert_eq!(read_all(blob).unwrap(), bytes);
    }
    assert_eq!(server.connections(), 1);

    // Promises to stay and goes away.
    let content = bytes.clone();
    let server = Server::start(move |_, _| {
        let mut reply = head(200, &format!("Content-Length: {}", content.len()));
        reply.extend_from_slice(&content);
        Reply::Close(reply)
    });
    for _ in 0..10 {
        let blob = repository_of(&client, &server)
            .blob(&descriptor(&bytes))
            .unwrap();
        assert_eq!(read_all(blob).unwrap(), bytes);
    }
    assert_eq!(server.requests().len(), 10);
}

#[test]
fn many_threads_pull_at_once() {
    let blobs: Vec<Vec<u8>> = (0..16).map(|seed| noise(200_000, seed * 2 + 1)).collect();
    let contents = blobs.clone();
    let server = Server::start(move |request, _| {
        let wanted = contents
            .iter()
            .find(|b| request.path().ends_with(&digest(b).to_string()));
        answer(200, "", wanted.unwrap())
    });
    let repository = Arc::new(repository(&server));
    std::thread::scope(|scope| {
        for bytes in &blobs {
            let repository = Arc::clone(&repository);
            scope.spawn(move || {
                let blob = repository.blob(&descriptor(bytes)).unwrap();
                assert_eq!(&read_all(blob).unwrap(), bytes);
            });
        }
    });
}

#[test]
fn pages_that_lead_astray_or_never_end_are_refused() {
    let server = Server::start(|_, number| {
        let link = format!("Link: </v2/app/tags/list?last=t{number}>; rel=\"next\"");
        answer(
            200,
            &link,
            format!(r#"{{"name":"app","tags":["t{number}"]}}"#),
        )
    });
    assert_eq!(
        repository(&server).tags(None, 5).unwrap(),
        ["t0", "t1", "t2", "t3", "t4"]
    );
    let server = Server::start(|_, _| {
        answer(
            200,
            "Link: <http://elsewhere.example/>; rel=next",
            r#"{"tags":["a"]}"#,
        )
    });
    let error = repository(&server).tags(None, 5).unwrap_err();
    assert!(error.to_string().contains("astray"), "{error}");
    let server = Server::start(|_, _| answer(200, "", r#"{"tags":["ok","bad\u001b[31m",""]}"#));
    assert_eq!(repository(&server).tags(None, 5).unwrap(), ["ok"]);
    let server = Server::start(|_, _| answer(200, "", r#"{"tags":null}"#));
    assert!(repository(&server).tags(None, 5).unwrap().is_empty());
}
