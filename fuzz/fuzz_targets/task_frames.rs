//! The protocol between engine and monitor: any bytes on the socket give a message or an
//! error, and what was received is sent and received again the same.
#![no_main]

use carrack_task::Connection;
use libfuzzer_sys::fuzz_target;
use std::io::Write;
use std::os::unix::net::UnixStream;

fuzz_target!(|bytes: &[u8]| {
    // More would wait in the socket for a reader.
    if bytes.len() > 64 << 10 {
        return;
    }
    let (mut sender, receiver) = UnixStream::pair().expect("a pair of sockets");
    sender.write_all(bytes).expect("room in the socket");
    drop(sender);
    let connection = Connection::new(receiver.into());
    while let Ok(incoming) = connection.receive(0) {
        let (one, other) = UnixStream::pair().expect("a pair of sockets");
        let (one, other) = (Connection::new(one.into()), Connection::new(other.into()));
        one.send(&incoming.message, &[]).expect("it can be sent");
        let again = other.receive(0).expect("and received");
        assert_eq!(again.message, incoming.message);
    }
});
