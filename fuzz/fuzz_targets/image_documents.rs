//! Index, manifest and configuration of an image: any bytes give a document or an error.
#![no_main]

use carrack_spec::image;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let _ = image::parse::<image::Index>(bytes);
    let _ = image::parse::<image::Manifest>(bytes);
    let _ = image::parse::<image::ImageConfig>(bytes);
});
