//! Images between the store and the world: pull, and who we are to a registry.
//!
//! ```text
//! files of this machine ─► access ─► carrack_registry::Client ─► documents, layers
//!   registries.conf, hosts.toml, certs.d, auth files, proxies         │
//!                                                                     ▼
//!                                   pull ─► carrack_store (ingest, documents, record last)
//! ```
//!
//! Contract: `carrack-registry` touches no disk and `carrack-store` no network; here they meet. Nothing here
//! reads or writes the terminal: what happens is told through a callback.

mod access;
mod credentials;
mod error;
mod layers;
mod login;
mod pull;

pub use access::{Access, AccessOptions};
pub use carrack_registry::{Credential, Found};
pub use credentials::HostCredentials;
pub use error::ImagesError;
pub use login::{LoggedIn, parse_pair};
pub use pull::{LayerEvent, PullEvent, PullOptions, Pulled};
