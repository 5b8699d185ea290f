//! `WWW-Authenticate` and `Link` of a registry: any text is parsed in bounded time and
//! gives back nothing that was not in it.
#![no_main]

use carrack_registry::{Challenge, Url, next_link, parse_challenges};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let challenges = parse_challenges([text]);
    assert!(challenges.len() <= 16);
    for challenge in challenges {
        if let Challenge::Bearer {
            realm,
            service,
            scope,
            error,
        } = challenge
        {
            assert!(realm.len() + service.len() + scope.len() + error.len() <= 4 * text.len());
        }
    }
    if let Some(target) = next_link(text) {
        assert!(text.contains(target));
        if let Ok(base) = Url::parse("https://registry.example/v2/a/tags/list")
            && let Ok(url) = base.join(target)
        {
            // What is followed has nothing that breaks a request apart.
            assert!(url.target().bytes().all(|b| b.is_ascii_graphic()));
            assert!(url.target().starts_with('/'));
        }
    }
});
