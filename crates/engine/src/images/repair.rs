//! `system check --repair`: what the store had to take away is fetched again.

use crate::images::{Access, PullOptions, TransferEvent};
use crate::{Engine, EngineError};
use carrack_spec::{Digest, Reference};
use carrack_store::{CheckOptions, Checked, ImageRecord};

/// What became of an image that had to be fetched again.
#[derive(Debug)]
pub struct Refetched {
    /// The image as it was.
    pub record: ImageRecord,
    /// Why it could not be fetched.
    pub error: Option<EngineError>,
}

impl Engine {
    /// Checks the store, and with `repair` mends it: images that lack something are pulled again, by digest,
    /// so that they are the same. `access` is opened only then.
    ///
    /// # Errors
    /// The store cannot be listed or mended; images that cannot be fetched are told one by one.
    pub fn check(
        &self,
        options: CheckOptions,
        access: &dyn Fn() -> Result<Access, EngineError>,
        looking: &dyn Fn(&Digest),
        tell: &(dyn Fn(TransferEvent) + Sync),
    ) -> Result<(Checked, Vec<Refetched>), EngineError> {
        let checked = self.store().check(options, looking)?;
        let mut refetched = Vec::new();
        if checked.refetch.is_empty() {
            return Ok((checked, refetched));
        }
        let access = access();
        for record in &checked.refetch {
            let fetched = match &access {
                Ok(access) => self.refetch(access, record, tell),
                Err(error) => Err(EngineError::NotFetched(error.to_string())),
            };
            refetched.push(Refetched {
                record: record.clone(),
                error: fetched.err(),
            });
        }
        Ok((checked, refetched))
    }

    fn refetch(
        &self,
        access: &Access,
        record: &ImageRecord,
        tell: &(dyn Fn(TransferEvent) + Sync),
    ) -> Result<(), EngineError> {
        let unnamed = || EngineError::NotFetched("it has no name to fetch it by".to_owned());
        let name = record.reference.as_ref().ok_or_else(unnamed)?;
        let reference: Reference = name.parse().map_err(|_| unnamed())?;
        let pinned = format!(
            "{}/{}@{}",
            reference.host(),
            reference.path(),
            record.target.digest
        );
        let options = PullOptions {
            platform: Some(record.platform.clone()),
        };
        let pulled = self.pull(access, &pinned, &options, tell)?;
        if reference.digest().is_none() {
            self.store().tag_image(&pinned, &reference)?;
            self.store()
                .untag_image(&pulled.record.reference.unwrap_or(pinned))?;
        }
        Ok(())
    }
}
