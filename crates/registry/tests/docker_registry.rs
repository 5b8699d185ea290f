//! The client against Debian's docker-registry.

mod support;

use std::io::Read;

use carrack_registry::{Credential, Document, Pushed, Repository, UploadOptions, Which};
use carrack_spec::Reference;
use carrack_spec::image::{Descriptor, Index, Manifest, Platform, media_type};
use carrack_testkit::{DockerRegistry, require};
use support::{digest, hasty, noise};

fn repository(registry: &DockerRegistry, name: &str) -> Repository {
    let reference: Reference = format!("{}/{name}", registry.host).parse().unwrap();
    hasty().build().repository(&reference).unwrap()
}

fn push(repository: &Repository, bytes: &[u8], options: &UploadOptions) -> Pushed {
    let content = bytes;
    repository
        .push_blob(&digest(bytes), &content, options)
        .unwrap()
}

fn descriptor(media_type: &str, bytes: &[u8]) -> Descriptor {
    Descriptor::new(media_type, digest(bytes), bytes.len() as u64)
}

fn pull(repository: &Repository, descriptor: &Descriptor) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut blob = repository.blob(descriptor).unwrap().verified();
    blob.read_to_end(&mut bytes).unwrap();
    bytes
}

/// Pushes an image of one layer; its manifest.
fn push_image(repository: &Repository, layer: &[u8]) -> Document {
    let config = br#"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers"}}"#;
    push(repository, config, &UploadOptions::default());
    push(repository, layer, &UploadOptions::default());
    let manifest = Manifest::new(
        descriptor(media_type::CONFIG, config),
        vec![descriptor(media_type::LAYER_GZIP, layer)],
    );
    Document::new("", serde_json::to_vec(&manifest).unwrap()).unwrap()
}

#[test]
fn an_image_crosses_over_in_every_form() {
    let registry = require!(DockerRegistry::start(""));
    let app = repository(&registry, "team/app");
    let layer = noise(3 << 20, 7);
    let manifest = push_image(&app, &layer);
    let pushed = app.push_manifest(Which::Tag("v1"), &manifest).unwrap();
    assert_eq!(pushed.digest, *manifest.digest());

    let mut index_entry = manifest.descriptor();
    index_entry.platform = Some(Platform::native());
    let index = serde_json::to_vec(&Index::new(vec![index_entry])).unwrap();
    let index = Document::new("", index).unwrap();
    app.push_manifest(Which::Tag("multi"), &index).unwrap();
    app.push_manifest(Which::Digest(index.digest()), &index)
        .unwrap();

    assert_eq!(
        app.resolve(Which::Tag("v1")).unwrap(),
        manifest.descriptor()
    );
    let fetched = app.manifest(Which::Tag("multi")).unwrap();
    assert_eq!(fetched, index);
    let chosen = fetched.choose(&Platform::native()).unwrap();
    let fetched = app.manifest(Which::Digest(&chosen.digest)).unwrap();
    assert_eq!(fetched.bytes(), manifest.bytes());
    let layers = fetched.manifest().unwrap().layers;
    assert_eq!(pull(&app, &layers[0]), layer);
}

#[test]
fn blobs_are_sent_once_mounted_and_sent_in_parts() {
    let registry = require!(DockerRegistry::start(""));
    let a = repository(&registry, "a");
    let b = repository(&registry, "b");
    let bytes = noise(1 << 20, 1);
    let options = UploadOptions::default();
    assert_eq!(push(&a, &bytes, &options), Pushed::Uploaded);
    assert_eq!(push(&a, &bytes, &options), Pushed::Existed);
    let from_a = UploadOptions {
        mount_from: vec!["nowhere".into(), "a".into()],
        ..UploadOptions::default()
    };
    assert!(matches!(
        push(&b, &bytes, &from_a),
        Pushed::Mounted | Pushed::Uploaded
    ));
    let from_a = UploadOptions {
        mount_from: vec!["a".into()],
        ..UploadOptions::default()
    };
    let c = repository(&registry, "c");
    assert_eq!(push(&c, &bytes, &from_a), Pushed::Mounted);

    let parts = UploadOptions {
        part_bytes: Some(300_000),
        ..UploadOptions::default()
    };
    let other = noise(1 << 20, 2);
    assert_eq!(push(&a, &other, &parts), Pushed::Uploaded);
    assert_eq!(pull(&a, &descriptor("x", &other)), other);

    let stream = noise(9 << 20, 3);
    let found = a
        .push_stream(media_type::LAYER, &mut stream.as_slice())
        .unwrap();
    assert_eq!(found, descriptor(media_type::LAYER, &stream));
    assert_eq!(pull(&a, &found), stream);
    let empty = a.push_stream(media_type::LAYER, &mut [].as_slice());
    assert_eq!(empty.unwrap().size, 0);
    assert_eq!(push(&b, b"", &options), Pushed::Uploaded);
}

#[test]
fn the_rest_of_a_blob_can_be_read() {
    let registry = require!(DockerRegistry::start(""));
    let app = repository(&registry, "app");
    let bytes = noise(100_000, 5);
    push(&app, &bytes, &UploadOptions::default());
    let mut rest = Vec::new();
    let mut blob = app.blob_from(&descriptor("x", &bytes), 60_000).unwrap();
    blob.read_to_end(&mut rest).unwrap();
    assert_eq!(rest, bytes[60_000..]);
    let missing = app.blob(&descriptor("x", b"missing"));
    assert!(missing.err().unwrap().is_not_found());
}

#[test]
fn lists_go_over_pages_and_deleted_manifests_are_gone() {
    let registry = require!(DockerRegistry::start(""));
    let app = repository(&registry, "app");
    let manifest = push_image(&app, b"layer");
    for tag in ["a", "b", "c", "d", "e"] {
        app.push_manifest(Which::Tag(tag), &manifest).unwrap();
    }
    let mut tags = app.tags(None, 100).unwrap();
    tags.sort();
    assert_eq!(tags, ["a", "b", "c", "d", "e"]);
    let whole = hasty().build().registry(&registry.host).unwrap();
    whole.ping().unwrap();
    push_image(&repository(&registry, "other/app"), b"layer");
    push_image(&repository(&registry, "third"), b"layer");
    let names = whole.catalog(None, 100).unwrap();
    assert_eq!(names, ["app", "other/app", "third"]);
    assert_eq!(whole.catalog(None, 2).unwrap(), ["app", "other/app"]);
    assert_eq!(
        whole.catalog(Some("app"), 100).unwrap(),
        ["other/app", "third"]
    );
    let found: Vec<_> = whole
        .search("APP", 10)
        .unwrap()
        .into_iter()
        .map(|f| f.name)
        .collect();
    assert_eq!(found, ["app", "other/app"]);

    assert!(app.has_manifest(manifest.digest()).unwrap());
    app.delete_manifest(Which::Digest(manifest.digest()))
        .unwrap();
    assert!(!app.has_manifest(manifest.digest()).unwrap());
    assert!(app.resolve(Which::Tag("a")).unwrap_err().is_not_found());
}

#[test]
fn a_catalogue_of_many_repositories_is_read_page_by_page() {
    let registry = require!(DockerRegistry::start(""));
    let names: Vec<String> = (0..2345).map(|n| format!("team/app{n:04}")).collect();
    for name in &names {
        std::fs::create_dir_all(registry.repository(name).join("_layers")).unwrap();
    }
    let whole = hasty().build().registry(&registry.host).unwrap();
    assert_eq!(whole.catalog(None, usize::MAX).unwrap(), names);
    assert_eq!(whole.catalog(None, 1500).unwrap(), names[..1500]);
    let after = whole.catalog(Some("team/app2000"), 3).unwrap();
    assert_eq!(after, names[2001..2004]);
    // A term is looked for on every page, as far as needed.
    let found = |limit| {
        let found = whole.search("app22", limit).unwrap();
        found.into_iter().map(|f| f.name).collect::<Vec<_>>()
    };
    assert_eq!(found(1000), names[2200..2300]);
    assert_eq!(found(2), names[2200..2202]);
    let all = whole.search("", 10).unwrap();
    assert_eq!((all.len(), all[9].name.as_str()), (10, "team/app0009"));
}

#[test]
fn referrers_are_listed_under_the_fallback_tag() {
    let registry = require!(DockerRegistry::start(""));
    let app = repository(&registry, "app");
    let subject = push_image(&app, b"layer");
    app.push_manifest(Which::Tag("v1"), &subject).unwrap();
    for kind in ["application/x-signature", "application/x-sbom"] {
        push(&app, b"{}", &UploadOptions::default());
        let mut referrer = Manifest::new(descriptor(media_type::EMPTY, b"{}"), Vec::new());
        referrer.artifact_type = kind.into();
        referrer.subject = Some(subject.descriptor());
        let referrer = Document::new("", serde_json::to_vec(&referrer).unwrap()).unwrap();
        let pushed = app.push_manifest(Which::Digest(referrer.digest()), &referrer);
        assert!(!pushed.unwrap().lists_referrers);
    }
    assert_eq!(app.referrers(subject.digest(), None).unwrap().len(), 2);
    let signed = app.referrers(subject.digest(), Some("application/x-signature"));
    assert_eq!(signed.unwrap().len(), 1);
    assert!(app.referrers(&digest(b"nobody"), None).unwrap().is_empty());
}

#[test]
fn a_login_is_checked_and_used() {
    let folder = tempfile::tempdir().unwrap();
    let users = folder.path().join("htpasswd");
    // bcrypt of "sesame".
    let line = "ali:$2b$05$onNBk6mgZn0l7kVn6mP1.eWluyhAZTundYHs47ELCwAdZUMTPgjPi\n";
    std::fs::write(&users, line).unwrap();
    let auth = format!(
        "auth:\n  htpasswd:\n    realm: test\n    path: {}\n",
        users.display()
    );
    let registry = require!(DockerRegistry::start(&auth));
    let whole = hasty().build().registry(&registry.host).unwrap();
    let basic = |password: &str| Credential::Basic {
        username: "ali".into(),
        password: password.into(),
    };
    let error = whole.login(&basic("wrong")).unwrap_err();
    assert!(
        error.to_string().contains("refuses the credentials of ali"),
        "{error}"
    );
    let login = whole.login(&basic("sesame")).unwrap();
    assert_eq!((login.credential, login.was_asked), (basic("sesame"), true));
    let error = repository(&registry, "app").tags(None, 1).unwrap_err();
    assert!(
        error.to_string().contains("access without a login"),
        "{error}"
    );
    assert!(error.hint().unwrap().contains("carrack login"));
}
