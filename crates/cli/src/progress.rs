//! Tells how a pull gets on: bars on a terminal, lines or JSON elsewhere; always on standard error, so that
//! standard output has the result alone.

use crate::registry_args::ProgressMode;
use crate::table;
use carrack_engine::images::{LayerEvent, PullEvent};
use carrack_spec::image::Descriptor;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use std::io::Write;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Where events go.
pub enum Progress {
    /// Nowhere.
    None,
    /// One line for each step.
    Plain(Mutex<Vec<Descriptor>>),
    /// One JSON document for each event; the bytes of a layer at most every [`JSON_BYTES_STEP`].
    Json(Mutex<Vec<(Descriptor, u64)>>),
    /// A bar for each layer.
    Bars(MultiProgress, Mutex<Vec<ProgressBar>>),
}

/// Bytes of a layer between two JSON documents.
const JSON_BYTES_STEP: u64 = 1 << 20;

impl Progress {
    /// The way of telling for a mode.
    pub fn new(mode: ProgressMode, quiet: bool) -> Self {
        let terminal = rustix::termios::isatty(std::io::stderr());
        match mode {
            _ if quiet => Self::None,
            ProgressMode::None => Self::None,
            ProgressMode::Json => Self::Json(Mutex::default()),
            ProgressMode::Tty => Self::Bars(MultiProgress::new(), Mutex::default()),
            ProgressMode::Auto if terminal => Self::Bars(MultiProgress::new(), Mutex::default()),
            ProgressMode::Auto | ProgressMode::Plain => Self::Plain(Mutex::default()),
        }
    }

    /// Tells one event.
    pub fn tell(&self, event: PullEvent) {
        match self {
            Self::None => {}
            Self::Plain(layers) => plain(&mut locked(layers), event),
            Self::Json(layers) => json(&mut locked(layers), event),
            Self::Bars(all, bars) => draw(all, &mut locked(bars), event),
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A closed standard error ends nothing.
fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

fn plain(layers: &mut Vec<Descriptor>, event: PullEvent) {
    match event {
        PullEvent::Asking(reference) => say(&format!("Pulling {reference}")),
        PullEvent::Layers(found) => *layers = found,
        PullEvent::Layer(n, event) => {
            let Some(layer) = layers.get(n) else {
                return;
            };
            let (id, size) = (layer.digest.short(), table::size(layer.size));
            match event {
                LayerEvent::Waiting => say(&format!("{id}: another pull fetches it; waiting")),
                LayerEvent::Done { existed: true } => say(&format!("{id}: already there")),
                LayerEvent::Done { existed: false } => say(&format!("{id}: pulled, {size}")),
                LayerEvent::Read(_) | LayerEvent::Flushing => {}
            }
        }
    }
}

fn json(layers: &mut Vec<(Descriptor, u64)>, event: PullEvent) {
    let document = match event {
        PullEvent::Asking(reference) => {
            serde_json::json!({"status": "resolving", "reference": reference.to_string()})
        }
        PullEvent::Layers(found) => {
            let all: Vec<_> = found
                .iter()
                .map(|l| serde_json::json!({"digest": l.digest, "size": l.size}))
                .collect();
            *layers = found.into_iter().map(|layer| (layer, 0)).collect();
            serde_json::json!({"status": "layers", "layers": all})
        }
        PullEvent::Layer(n, event) => {
            let Some((layer, told)) = layers.get_mut(n) else {
                return;
            };
            let status = match event {
                LayerEvent::Waiting => "waiting",
                LayerEvent::Read(bytes) => {
                    if bytes < *told + JSON_BYTES_STEP && bytes < layer.size {
                        return;
                    }
                    *told = bytes;
                    "pulling"
                }
                LayerEvent::Flushing => "flushing",
                LayerEvent::Done { existed: true } => "exists",
                LayerEvent::Done { existed: false } => "done",
            };
            let mut document = serde_json::json!({
                "status": status, "digest": layer.digest, "size": layer.size
            });
            if let LayerEvent::Read(bytes) = event {
                document["read"] = bytes.into();
            }
            document
        }
    };
    say(&document.to_string());
}

fn draw(all: &MultiProgress, bars: &mut Vec<ProgressBar>, event: PullEvent) {
    match event {
        PullEvent::Asking(reference) => {
            let _ = all.println(format!("Pulling {reference}"));
        }
        PullEvent::Layers(layers) => {
            let template = "{prefix:12} [{bar:30}] {bytes:>10} / {total_bytes:<10} {msg}";
            let style = ProgressStyle::with_template(template)
                .map(|style| style.progress_chars("=> "))
                .unwrap_or_else(|_| ProgressStyle::default_bar());
            *bars = layers
                .iter()
                .map(|layer| {
                    let bar = all.add(ProgressBar::new(layer.size));
                    bar.set_style(style.clone());
                    bar.set_prefix(layer.digest.short().to_owned());
                    bar
                })
                .collect();
        }
        PullEvent::Layer(n, event) => {
            let Some(bar) = bars.get(n) else {
                return;
            };
            match event {
                LayerEvent::Waiting => bar.set_message("another pull fetches it"),
                LayerEvent::Read(bytes) => bar.set_position(bytes),
                LayerEvent::Flushing => bar.set_message("writing to disk"),
                LayerEvent::Done { existed } => {
                    bar.finish_with_message(if existed { "already there" } else { "done" });
                }
            }
        }
    }
}
