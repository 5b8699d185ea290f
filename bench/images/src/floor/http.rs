//! As much of HTTP as a registry on the loopback needs: one request a connection.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;

use anyhow::{Context, Result, bail};

/// Manifests that are read.
const ACCEPT: &str = "application/vnd.oci.image.manifest.v1+json, */*";

/// The body of `/v2/NAME/WHAT`.
pub fn get(host: &str, name: &str, what: &str) -> Result<impl Read + use<>> {
    let mut socket = TcpStream::connect(host).with_context(|| host.to_owned())?;
    let request = format!(
        "GET /v2/{name}/{what} HTTP/1.1\r\nHost: {host}\r\nAccept: {ACCEPT}\r\nConnection: close\r\n\r\n"
    );
    socket.write_all(request.as_bytes())?;
    let mut answer = BufReader::with_capacity(4 << 10, socket);
    let mut line = String::new();
    answer.read_line(&mut line)?;
    if line.split_whitespace().nth(1) != Some("200") {
        bail!("{what}: {}", line.trim());
    }
    let mut length = None;
    loop {
        line.clear();
        answer.read_line(&mut line)?;
        let Some((field, value)) = line.trim().split_once(':') else {
            break;
        };
        if field.eq_ignore_ascii_case("content-length") {
            length = value.trim().parse::<u64>().ok();
        }
    }
    Ok(answer.take(length.context("an answer without a length")?))
}
