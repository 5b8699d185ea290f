//! The `Link` header (RFC 8288), of which a client needs `rel="next"`.

/// Longest header that is parsed, in bytes.
const LINK_BYTES_MAX: usize = 16 << 10;

/// The target of the first link whose relation is `next`.
pub fn next_link(header: &str) -> Option<&str> {
    if header.len() > LINK_BYTES_MAX {
        return None;
    }
    let mut rest = header;
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        let (target, after) = rest.strip_prefix('<')?.split_once('>')?;
        let end = end_of_parameters(after);
        let (parameters, tail) = after.split_at(end);
        if parameters.split(';').any(is_next) {
            return Some(target);
        }
        rest = tail;
    }
}

/// Where the comma before the next link stands, quoted ones passed over.
fn end_of_parameters(text: &str) -> usize {
    let mut quoted = false;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'"' => quoted = !quoted,
            b',' if !quoted => return at,
            _ => {}
        }
    }
    text.len()
}

fn is_next(parameter: &str) -> bool {
    let Some((name, value)) = parameter.split_once('=') else {
        return false;
    };
    let value = value.trim().trim_matches('"');
    name.trim().eq_ignore_ascii_case("rel")
        && value.split(' ').any(|rel| rel.eq_ignore_ascii_case("next"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_next_link_is_found() {
        for (header, wanted) in [
            (
                r#"</v2/a/tags/list?last=b&n=2>; rel="next""#,
                Some("/v2/a/tags/list?last=b&n=2"),
            ),
            ("<a>;rel=next", Some("a")),
            (
                r#"<p>; rel="prev", <n>; title="x,y"; REL="next last""#,
                Some("n"),
            ),
            (r#"<p>; rel="prev""#, None),
            ("<a; rel=next", None),
            ("", None),
            (",,,", None),
        ] {
            assert_eq!(next_link(header), wanted, "{header}");
        }
    }

    proptest! {
        #[test]
        fn any_header_is_parsed(header in "\\PC{0,100}", tight in "[<>;=,\" relnxt]{0,60}") {
            let _ = next_link(&header);
            let _ = next_link(&tight);
        }
    }
}
