//! Documents as people read them.

/// The same JSON document, indented, its properties in the order that they have. What is no JSON stays as
/// it is.
pub fn indented(text: &str) -> String {
    if serde_json::from_str::<serde::de::IgnoredAny>(text).is_err() {
        return text.to_owned();
    }
    let mut out = String::new();
    let mut depth = 0;
    let mut chars = text.chars().filter(in_strings_or_not_blank()).peekable();
    let mut in_string = Quotes::default();
    while let Some(c) = chars.next() {
        if in_string.next(c) {
            out.push(c);
            continue;
        }
        match c {
            '{' | '[' => {
                out.push(c);
                if chars.peek().is_some_and(|next| matches!(next, '}' | ']')) {
                    out.extend(chars.next());
                } else {
                    depth += 1;
                    line(&mut out, depth);
                }
            }
            '}' | ']' => {
                depth -= 1;
                line(&mut out, depth);
                out.push(c);
            }
            ',' => {
                out.push(c);
                line(&mut out, depth);
            }
            ':' => out.push_str(": "),
            c => out.push(c),
        }
    }
    out
}

fn line(out: &mut String, depth: usize) {
    out.push('\n');
    out.push_str(&"    ".repeat(depth));
}

/// Which characters belong to strings.
#[derive(Default)]
struct Quotes {
    inside: bool,
    escaped: bool,
}

impl Quotes {
    /// Whether the next character is a string's own, its quotes counted.
    fn next(&mut self, c: char) -> bool {
        let was = self.inside;
        match c {
            _ if self.escaped => self.escaped = false,
            '\\' if self.inside => self.escaped = true,
            '"' => self.inside = !self.inside,
            _ => {}
        }
        was || self.inside
    }
}

fn in_strings_or_not_blank() -> impl FnMut(&char) -> bool {
    let mut quotes = Quotes::default();
    move |c| quotes.next(*c) || !c.is_ascii_whitespace()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_keep_their_order_and_strings() {
        let text = r#"{"b": [1, {}],"a":{"c":"x: {\"y\"} , \\"},"e":[ ] }"#;
        let shown = "{\n    \"b\": [\n        1,\n        {}\n    ],\n    \"a\": {\n        \
            \"c\": \"x: {\\\"y\\\"} , \\\\\"\n    },\n    \"e\": []\n}";
        assert_eq!(indented(text), shown);
        assert_eq!(indented(shown), shown);
        assert_eq!(indented("{no"), "{no");
    }
}
