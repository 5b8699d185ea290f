//! Both ends of a conversation over a socket pair.

use carrack_task::*;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;

fn pair() -> (Connection, Connection) {
    let (a, b) = UnixStream::pair().unwrap();
    (
        Connection::new(OwnedFd::from(a)),
        Connection::new(OwnedFd::from(b)),
    )
}

fn id(s: &str) -> Id {
    Id(s.parse().unwrap())
}

fn create() -> Call {
    Call::Create(Create {
        id: id("c"),
        bundle: "/b".into(),
        root: true,
        terminal: false,
        start: true,
        tied: true,
        release: true,
        remove: vec!["/b".into()],
    })
}

#[test]
fn a_call_carries_descriptors_and_events_wait_for_their_reader() {
    let (client, server) = UnixStream::pair().unwrap();
    let monitor = std::thread::spawn(move || {
        let server = Connection::new(server.into());
        server.greet().unwrap();
        let call = server.receive(1000).unwrap();
        assert_eq!(call.fds.len(), 4);
        assert!(matches!(call.message, Message::Call { seq: 1, .. }));
        let exit = Exit {
            code: 137,
            signal: Some(9),
            at_ms: 1,
        };
        let event = Event::Exited {
            id: id("x"),
            exec: None,
            exit,
        };
        server.send(&Message::Event { event }, &[]).unwrap();
        let answer = Answer::Created {
            pid: 7,
            terminal: true,
        };
        server
            .send(&Message::Done { seq: 1, answer }, &[call.fds[0].as_fd()])
            .unwrap();
        let _ = server.receive(1000).unwrap();
        let failure = Failure {
            kind: FailureKind::NotFound,
            message: "gone".into(),
        };
        server
            .send(&Message::Failed { seq: 2, failure }, &[])
            .unwrap();
    });
    let mut client = Client::new(client.into()).unwrap();
    let null = std::fs::File::open("/dev/null").unwrap();
    let fd = null.as_fd();
    let made = client.create(create(), &[fd, fd, fd, fd]).unwrap();
    assert_eq!(made.pid, 7);
    assert!(made.terminal.is_some() && client.has_event());
    assert!(matches!(
        client.event(0).unwrap(),
        Event::Exited {
            exit: Exit { code: 137, .. },
            ..
        }
    ));
    let refused = client.call(Call::State { id: id("c") }).unwrap_err();
    assert_eq!(refused.to_string(), "gone");
    monitor.join().unwrap();
    assert!(matches!(client.event(1000), Err(TaskError::Closed)));
}

#[test]
fn the_wrong_number_of_descriptors_is_refused_by_both_sides() {
    let (a, b) = pair();
    let message = Message::Call {
        seq: 1,
        call: Box::new(create()),
    };
    assert!(matches!(
        a.send(&message, &[]),
        Err(TaskError::Descriptors {
            wanted: 4,
            found: 0
        })
    ));
    let null = std::fs::File::open("/dev/null").unwrap();
    let text = serde_json::to_vec(&message).unwrap();
    let frame = [&(text.len() as u32).to_le_bytes()[..], &text].concat();
    carrack_sys::fdpass::send(a.as_fd(), &frame, &[null.as_fd()]).unwrap();
    assert!(matches!(
        b.receive(1000),
        Err(TaskError::Descriptors {
            wanted: 4,
            found: 1
        })
    ));
}

#[test]
fn another_version_and_frames_that_are_none_are_named_errors() {
    let (a, b) = pair();
    a.send(
        &Message::Hello {
            version: PROTOCOL_VERSION + 1,
        },
        &[],
    )
    .unwrap();
    assert!(matches!(b.greet(), Err(TaskError::Version { .. })));

    type IsExpected = fn(&TaskError) -> bool;
    let frames: [(&[u8], IsExpected); 4] = [
        (b"\xff\xff\xff\x7f{}", |e| {
            matches!(e, TaskError::TooLarge { .. })
        }),
        (b"\x02\0\0\0{}", |e| matches!(e, TaskError::Malformed(_))),
        (b"\x05\0\0\0{", |e| matches!(e, TaskError::Closed)),
        (b"\x00\x00", |e| matches!(e, TaskError::Closed)),
    ];
    for (bytes, expected) in frames {
        let (mut a, b) = UnixStream::pair().unwrap();
        a.write_all(bytes).unwrap();
        drop(a);
        let error = Connection::new(b.into()).receive(1000).unwrap_err();
        assert!(expected(&error), "{bytes:?}: {error}");
    }
    let (_a, b) = pair();
    assert!(matches!(b.receive(10), Err(TaskError::Timeout)));
}

#[test]
fn a_bad_name_on_the_wire_is_refused() {
    let text = r#"{"type":"call","seq":1,"call":{"verb":"state","id":"../x"}}"#;
    assert!(serde_json::from_str::<Message>(text).is_err());
}

#[test]
fn a_peer_that_does_not_read_costs_a_frames_time_and_no_more() {
    let (a, _b) = pair();
    let message = Message::Hello {
        version: PROTOCOL_VERSION,
    };
    let error = loop {
        if let Err(error) = a.send(&message, &[]) {
            break error;
        }
    };
    assert!(matches!(error, TaskError::Timeout), "{error}");
}
