//! What the distribution specification demands of a client and no other test shows; the list of all cases is `docs/registry-conformance.md`.

mod support;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use carrack_registry::{Client, Document, Error, Repository, UploadOptions, Which};
use carrack_spec::image::{Descriptor, Index, Manifest, media_type, parse};
use carrack_spec::{Digest, Reference};
use support::server::{Request, Server, answer};
use support::{digest, hasty, noise};

fn repository_of(client: &Client, server: &Server) -> Repository {
    let reference: Reference = format!("{}/team/app", server.host).parse().unwrap();
    client.repository(&reference).unwrap()
}

fn repository(server: &Server) -> Repository {
    repository_of(&hasty().build(), server)
}

fn methods(server: &Server) -> Vec<String> {
    server.requests().into_iter().map(|r| r.method).collect()
}

fn manifest(text: &str) -> Document {
    let config = Descriptor::new(media_type::CONFIG, digest(text.as_bytes()), 1);
    let bytes = serde_json::to_vec(&Manifest::new(config, Vec::new())).unwrap();
    Document::new("", bytes).unwrap()
}

#[test]
fn manifests_are_asked_for_by_type_and_parameters_of_the_type_are_ignored() {
    let document = manifest("a");
    let bytes = document.bytes().to_vec();
    let server = Server::start(move |request, _| {
        let kind = format!("{}; charset=utf-8", media_type::MANIFEST);
        let fields = format!("Content-Type: {kind}");
        match request.method.as_str() {
            "HEAD" => answer(404, "", ""),
            _ => answer(200, &fields, &bytes),
        }
    });
    let found = repository(&server).manifest(Which::Tag("v1")).unwrap();
    assert_eq!(found, document);
    let request = &server.requests()[0];
    assert_eq!(request.target, "/v2/team/app/manifests/v1");
    let accept = request.field("accept").unwrap();
    for kind in [
        media_type::INDEX,
        media_type::MANIFEST,
        media_type::DOCKER_LIST,
        media_type::DOCKER_MANIFEST,
    ] {
        assert!(accept.contains(kind), "{accept}");
    }
}

#[test]
fn a_whole_upload_is_a_post_of_nothing_and_a_put_to_the_location_as_it_is() {
    let bytes = noise(1000, 1);
    for location in [
        "/elsewhere/up?state=a%2Fb&x=1",
        "up?state=a%2Fb&x=1",
        "http://HOST/elsewhere/up?state=a%2Fb&x=1",
    ] {
        let location = location.to_owned();
        let server = Server::start(move |request: &Request, _| match request.method.as_str() {
            "HEAD" => answer(404, "", ""),
            "POST" => {
                let host = request.field("host").unwrap();
                let location = location.replace("HOST", host);
                answer(202, &format!("Location: {location}"), "")
            }
            _ => answer(201, "Location: /v2/team/app/blobs/x", ""),
        });
        let options = UploadOptions::default();
        repository(&server)
            .push_blob(&digest(&bytes), &bytes, &options)
            .unwrap();
        let asked = server.requests();
        assert_eq!(methods(&server), ["HEAD", "POST", "PUT"]);
        assert_eq!(asked[1].target, "/v2/team/app/blobs/uploads/");
        assert_eq!(asked[1].field("content-length"), Some("0"));
        let put = &asked[2];
        let end = format!("up?state=a%2Fb&x=1&digest={}", digest(&bytes));
        assert!(put.target.ends_with(&end), "{}", put.target);
        assert_eq!(put.field("content-length"), Some("1000"));
        let kind = put.field("content-type");
        assert_eq!(kind, Some("application/octet-stream"));
        assert_eq!(put.body, bytes);
    }
}

#[test]
fn parts_have_closed_ranges_and_each_goes_where_the_answer_before_said() {
    let bytes = noise(2500, 2);
    let server = Server::start(|request: &Request, n| match request.method.as_str() {
        "HEAD" => answer(404, "", ""),
        "PUT" => answer(201, "", ""),
        _ => {
            let end = request
                .field("content-range")
                .map(|r| r.split_once('-').unwrap().1);
            let fields = format!("Location: /up/{n}\nRange: 0-{}", end.unwrap_or("0"));
            answer(202, &fields, "")
        }
    });
    let options = UploadOptions {
        part_bytes: Some(1000),
        ..UploadOptions::default()
    };
    repository(&server)
        .push_blob(&digest(&bytes), &bytes, &options)
        .unwrap();
    let asked = server.requests();
    assert_eq!(
        methods(&server),
        ["HEAD", "POST", "PATCH", "PATCH", "PATCH", "PUT"]
    );
    let seen: Vec<_> = asked[2..]
        .iter()
        .map(|r| {
            (
                r.target.as_str(),
                r.field("content-range"),
                r.field("content-length"),
            )
        })
        .collect();
    let close = format!("/up/4?digest={}", digest(&bytes));
    assert_eq!(
        seen,
        [
            ("/up/1", Some("0-999"), Some("1000")),
            ("/up/2", Some("1000-1999"), Some("1000")),
            ("/up/3", Some("2000-2499"), Some("500")),
            (close.as_str(), None, Some("0")),
        ]
    );
    let sent: Vec<u8> = asked[2..].iter().flat_map(|r| r.body.clone()).collect();
    assert_eq!(sent, bytes);
}

#[test]
fn an_upload_that_is_refused_is_given_up_at_the_registry() {
    let bytes = noise(1000, 3);
    let start = || {
        Server::start(|request: &Request, _| match request.method.as_str() {
            "HEAD" => answer(404, "", ""),
            "POST" => answer(202, "Location: /up/1", ""),
            "DELETE" => answer(204, "", ""),
            _ => answer(403, "", ""),
        })
    };
    let last = |server: &Server| {
        let request = server.requests().pop().unwrap();
        (request.method.clone(), request.target)
    };
    let wanted = ("DELETE".to_owned(), "/up/1".to_owned());
    let server = start();
    let options = UploadOptions::default();
    let pushed = repository(&server).push_blob(&digest(&bytes), &bytes, &options);
    assert!(matches!(pushed, Err(Error::Refused(_))), "{pushed:?}");
    assert_eq!(last(&server), wanted);
    let server = start();
    let pushed = repository(&server).push_stream("x", &mut bytes.as_slice());
    assert!(matches!(pushed, Err(Error::Refused(_))), "{pushed:?}");
    assert_eq!(last(&server), wanted);
}

#[test]
fn an_upload_of_another_algorithm_is_announced() {
    let server = Server::start(|request: &Request, _| match request.method.as_str() {
        "HEAD" => answer(404, "", ""),
        "POST" => answer(202, "Location: /up/1", ""),
        _ => answer(201, "", ""),
    });
    let sha512: Digest = format!("sha512:{}", "0".repeat(128)).parse().unwrap();
    let bytes = b"x".to_vec();
    repository(&server)
        .push_blob(&sha512, &bytes, &UploadOptions::default())
        .unwrap();
    let asked = server.requests();
    assert_eq!(
        asked[1].target,
        "/v2/team/app/blobs/uploads/?digest-algorithm=sha512"
    );
    assert_eq!(asked[2].target, format!("/up/1?digest={sha512}"));
}

/// Manifests by path: their types and bytes.
type Kept = BTreeMap<String, (String, Vec<u8>)>;

/// A registry that keeps manifests, by path. `lists` says whether it knows referrers itself.
struct Manifests {
    server: Server,
    kept: Arc<Mutex<Kept>>,
}

impl Manifests {
    fn new(lists: bool) -> Self {
        let kept: Arc<Mutex<Kept>> = Arc::default();
        let state = Arc::clone(&kept);
        let server = Server::start(move |request: &Request, _| {
            let mut kept = state.lock().unwrap();
            let at = request.target.clone();
            let empty = serde_json::to_vec(&Index::new(Vec::new())).unwrap();
            match request.method.as_str() {
                "PUT" => {
                    let kind = request.field("content-type").unwrap().to_owned();
                    kept.insert(at, (kind, request.body.clone()));
                    answer(201, if lists { "OCI-Subject: sha256:x" } else { "" }, "")
                }
                "DELETE" => match kept.remove(&at) {
                    Some(_) => answer(202, "", ""),
                    None => answer(404, "", ""),
                },
                _ if at.contains("/referrers/") && lists => answer(200, "", empty),
                _ => match kept.get(&at) {
                    Some((kind, bytes)) => answer(200, &format!("Content-Type: {kind}"), bytes),
                    None => answer(404, "", ""),
                },
            }
        });
        Self { server, kept }
    }

    fn get(&self, which: &str) -> Option<(String, Vec<u8>)> {
        let kept = self.kept.lock().unwrap();
        kept.get(&format!("/v2/team/app/manifests/{which}"))
            .cloned()
    }
}

fn referrer(subject: &Document, artifact_type: &str, note: &str) -> Document {
    let config = Descriptor::new("application/x-config", digest(note.as_bytes()), 1);
    let mut manifest = Manifest::new(config, Vec::new());
    manifest.artifact_type = artifact_type.to_owned();
    manifest.subject = Some(subject.descriptor());
    manifest.annotations.insert("note".into(), note.into());
    Document::new("", serde_json::to_vec(&manifest).unwrap()).unwrap()
}

#[test]
fn a_manifest_is_pushed_as_it_is_under_its_own_type() {
    let registry = Manifests::new(false);
    let repository = repository(&registry.server);
    let text = format!(
        "{{ \"schemaVersion\":2, \"mediaType\":\"{}\",\n\"manifests\":[] }}",
        media_type::DOCKER_LIST
    );
    let document = Document::new("", text.clone().into_bytes()).unwrap();
    repository
        .push_manifest(Which::Tag("v1"), &document)
        .unwrap();
    repository
        .push_manifest(Which::Digest(document.digest()), &document)
        .unwrap();
    let kept = (media_type::DOCKER_LIST.to_owned(), text.into_bytes());
    assert_eq!(registry.get("v1"), Some(kept.clone()));
    assert_eq!(registry.get(&document.digest().to_string()), Some(kept));
}

#[test]
fn a_registry_that_lists_referrers_is_left_alone() {
    let registry = Manifests::new(true);
    let repository = repository(&registry.server);
    let subject = manifest("subject");
    let signature = referrer(&subject, "application/x-signature", "one");
    let which = Which::Digest(signature.digest());
    assert!(
        repository
            .push_manifest(which, &signature)
            .unwrap()
            .lists_referrers
    );
    assert_eq!(methods(&registry.server), ["PUT"]);
    assert!(
        repository
            .referrers(subject.digest(), None)
            .unwrap()
            .is_empty()
    );
    repository.delete_manifest(which).unwrap();
    assert_eq!(methods(&registry.server)[2..], ["GET", "DELETE", "GET"]);
}

#[test]
fn the_fallback_list_of_referrers_is_kept_up_to_date() {
    let registry = Manifests::new(false);
    let repository = repository(&registry.server);
    let subject = manifest("subject");
    let tag = subject.digest().to_string().replace(':', "-");
    let list = || -> Index { parse(&registry.get(&tag).unwrap().1).unwrap() };
    let signature = referrer(&subject, "application/x-signature", "one");
    let other = referrer(&subject, "", "two");
    // Twice the same is one entry.
    for document in [&signature, &other, &signature] {
        let which = Which::Digest(document.digest());
        assert!(
            !repository
                .push_manifest(which, document)
                .unwrap()
                .lists_referrers
        );
    }
    let entries = list().manifests;
    assert_eq!(entries.len(), 2);
    assert_eq!(entries[0].artifact_type, "application/x-signature");
    assert_eq!(entries[0].annotations["note"], "one");
    // Without a type of its own, that of the configuration.
    assert_eq!(entries[1].artifact_type, "application/x-config");
    assert_eq!(registry.get(&tag).unwrap().0, media_type::INDEX);
    let found = repository.referrers(subject.digest(), Some("application/x-config"));
    assert_eq!(found.unwrap(), entries[1..]);

    repository
        .delete_manifest(Which::Digest(signature.digest()))
        .unwrap();
    assert_eq!(list().manifests, entries[1..]);

    // What is no index there is not overwritten, and lists nothing.
    let subject = manifest("another");
    let tag = subject.digest().to_string().replace(':', "-");
    let stranger = manifest("stranger");
    repository
        .push_manifest(Which::Tag(&tag), &stranger)
        .unwrap();
    let signature = referrer(&subject, "application/x-signature", "three");
    let pushed = repository.push_manifest(Which::Digest(signature.digest()), &signature);
    let error = pushed.unwrap_err().to_string();
    assert!(error.contains(&tag), "{error}");
    assert_eq!(registry.get(&tag).unwrap().1, stranger.bytes());
    assert!(
        repository
            .referrers(subject.digest(), None)
            .unwrap()
            .is_empty()
    );
}

#[test]
fn the_tag_of_a_long_digest_has_sixty_four_digits_of_it() {
    let registry = Manifests::new(false);
    let sha512: Digest = format!("sha512:{}{}", "a".repeat(64), "b".repeat(64))
        .parse()
        .unwrap();
    let repository = repository(&registry.server);
    assert!(repository.referrers(&sha512, None).unwrap().is_empty());
    let asked = registry.server.requests();
    let tag = format!("/v2/team/app/manifests/sha512-{}", "a".repeat(64));
    assert_eq!(asked[1].target, tag);
}

#[test]
fn referrers_come_in_pages_and_are_filtered_here_where_the_registry_does_not() {
    let subject = digest(b"subject");
    let entry = |kind: &str| {
        let mut entry = Descriptor::new(media_type::MANIFEST, digest(kind.as_bytes()), 1);
        entry.artifact_type = kind.to_owned();
        entry
    };
    let server = Server::start(move |request: &Request, _| {
        let second = request.target.contains("page=2");
        let kinds = if second { ["b", "a"] } else { ["a", "c"] };
        let index = Index::new(kinds.map(entry).to_vec());
        let link = format!("Link: <{}?page=2>; rel=\"next\"", request.path());
        answer(
            200,
            if second { "" } else { &link },
            serde_json::to_vec(&index).unwrap(),
        )
    });
    let repository = repository(&server);
    let all = repository.referrers(&subject, None).unwrap();
    let kinds: Vec<_> = all.iter().map(|d| d.artifact_type.as_str()).collect();
    assert_eq!(kinds, ["a", "c", "b", "a"]);
    assert_eq!(repository.referrers(&subject, Some("a")).unwrap().len(), 2);
    let asked = server.requests();
    let first = format!("/v2/team/app/referrers/{subject}");
    assert_eq!(asked[0].target, first);
    assert_eq!(asked[2].target, format!("{first}?artifactType=a"));
}

#[test]
fn tags_are_asked_for_in_pages_after_the_last_one_and_links_lead_on() {
    let server = Server::start(|request: &Request, _| {
        let last = request.target.contains("last=c");
        let tags = if last { r#"["d","e"]"# } else { r#"["b","c"]"# };
        let link = format!("Link: <{}?n=2&last=c>; rel=\"next\"", request.path());
        let body = format!(r#"{{"name":"team/app","tags":{tags}}}"#);
        answer(200, if last { "" } else { &link }, body)
    });
    let repository = repository(&server);
    assert_eq!(
        repository.tags(Some("a"), 100).unwrap(),
        ["b", "c", "d", "e"]
    );
    assert_eq!(repository.tags(None, 2).unwrap(), ["b", "c"]);
    let asked: Vec<String> = server.requests().into_iter().map(|r| r.target).collect();
    assert_eq!(
        asked,
        [
            "/v2/team/app/tags/list?n=100&last=a",
            "/v2/team/app/tags/list?n=2&last=c",
            "/v2/team/app/tags/list?n=2",
        ]
    );
    // No tags are no error.
    let server = Server::start(|_, _| answer(200, "", r#"{"name":"team/app","tags":null}"#));
    assert!(
        repository_of(&hasty().build(), &server)
            .tags(None, 9)
            .unwrap()
            .is_empty()
    );
}

#[test]
fn errors_of_the_specification_are_told_with_their_code() {
    for (status, code) in [
        (404, "MANIFEST_BLOB_UNKNOWN"),
        (413, "SIZE_INVALID"),
        (400, "MANIFEST_INVALID"),
    ] {
        let body = format!(r#"{{"errors":[{{"code":"{code}","message":"so","detail":{{}}}}]}}"#);
        let server = Server::start(move |_, _| answer(status, "", &body));
        let pushed = repository(&server).push_manifest(Which::Tag("v1"), &manifest("a"));
        let error = pushed.unwrap_err().to_string();
        assert!(error.contains(code) && error.contains("so"), "{error}");
    }
}

#[test]
fn blobs_are_deleted_where_the_registry_allows_it() {
    let blob = digest(b"x");
    let server = Server::start(|_, n| answer(if n == 0 { 202 } else { 405 }, "", ""));
    let repository = repository(&server);
    repository.delete_blob(&blob).unwrap();
    let asked = &server.requests()[0];
    let target = format!("/v2/team/app/blobs/{blob}");
    assert_eq!((asked.method.as_str(), &asked.target), ("DELETE", &target));
    for error in [
        repository.delete_blob(&blob).unwrap_err(),
        repository.delete_manifest(Which::Tag("v1")).unwrap_err(),
    ] {
        assert!(error.to_string().contains("405"), "{error}");
    }
}
