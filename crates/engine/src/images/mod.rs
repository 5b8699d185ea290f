//! Images between the store and the world: pull, push, copy, and who we are to a registry.
//!
//! ```text
//! files of this machine ─► access ─► carrack_registry::Client ─┐
//!   registries.conf, hosts.toml, certs.d, auth files, proxies  │
//!                                                              ▼
//!        layouts, archives, directories ◄─────────► transport (Source, Sink)
//!                                                    │     ▲        └──── copy ────┘
//!                                               pull ▼     │ push
//!                                   carrack_store (ingest, documents, record last)
//! ```
//!
//! Contract: `carrack-registry` touches no disk and `carrack-store` no network; here they meet. Nothing here
//! reads or writes the terminal: what happens is told through a callback.

mod access;
mod copy;
mod credentials;
mod diff;
mod error;
mod events;
mod lists;
mod load;
mod login;
mod mounts;
mod pull;
mod push;
mod repair;
mod transport;

pub use access::{Access, AccessOptions};
pub use carrack_registry::{Credential, Found, Pushed as Sent};
pub use carrack_store::{
    Change, CheckOptions, Checked, HistoryStep, ImageList, ImportOptions, ListMember, MemberSource,
    PruneOptions, Pruned, SaveForm, SaveOptions, TreeNode, Usage,
};
pub use copy::{Copied, CopyOptions, Platforms};
pub use credentials::HostCredentials;
pub use error::ImagesError;
pub use events::{LayerEvent, TransferEvent};
pub use lists::MemberOptions;
pub use login::{LoggedIn, parse_pair};
pub use pull::{PullOptions, Pulled};
pub use push::{ManifestFormat, PushOptions, Pushed};
pub use repair::Refetched;
pub use transport::{Place, PlaceError, Sink, Source};
