//! Private parsers, opened to `fuzz/`: any bytes give a value or an error.

use crate::{checkpoint, passwd, plan};

/// Messages of criu.
pub fn criu_response(bytes: &[u8]) {
    let _ = checkpoint::rpc::Response::read(bytes);
}

/// A container's `/etc/passwd`, which its programs can write.
pub fn passwd(text: &str) {
    for uid in [0, 1000, u32::MAX] {
        if let Some(home) = passwd::find(text, uid) {
            assert!(home.starts_with('/'));
        }
    }
}

/// Options of mounts.
pub fn mount_options(text: &str) {
    let options: Vec<String> = text.split(',').map(str::to_owned).collect();
    let parsed = plan::options::parse(&options);
    let _ = parsed.attributes();
}

/// Lists of processors and nodes, `0-3,8`.
pub fn bit_set(text: &str) {
    let _ = plan::bit_set(text, "field");
}
