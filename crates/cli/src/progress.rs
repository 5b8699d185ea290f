//! Tells how a pull, push or copy gets on: bars on a terminal, lines or JSON elsewhere; always on standard error, so that
//! standard output has the result alone.

use crate::registry_args::ProgressMode;
use crate::table;
use carrack_engine::images::{LayerEvent, TransferEvent};
use carrack_spec::image::Descriptor;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use std::io::Write;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Where bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// Into the store.
    In,
    /// Out of it.
    Out,
    /// From one place to another.
    Across,
}

impl Direction {
    /// What was done, and what is being done.
    fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::In => ("pulled", "pulling"),
            Self::Out => ("pushed", "pushing"),
            Self::Across => ("copied", "copying"),
        }
    }
}

/// Tells events.
pub struct Progress {
    direction: Direction,
    form: Form,
}

/// Where events go.
enum Form {
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
    pub fn new(direction: Direction, mode: ProgressMode, quiet: bool) -> Self {
        let terminal = rustix::termios::isatty(std::io::stderr());
        let form = match mode {
            _ if quiet => Form::None,
            ProgressMode::None => Form::None,
            ProgressMode::Json => Form::Json(Mutex::default()),
            ProgressMode::Tty => Form::Bars(MultiProgress::new(), Mutex::default()),
            ProgressMode::Auto if terminal => Form::Bars(MultiProgress::new(), Mutex::default()),
            ProgressMode::Auto | ProgressMode::Plain => Form::Plain(Mutex::default()),
        };
        Self { direction, form }
    }

    /// Tells one event.
    pub fn tell(&self, event: TransferEvent) {
        let (done, doing) = self.direction.words();
        match &self.form {
            Form::None => {}
            Form::Plain(layers) => plain(&mut locked(layers), event, done),
            Form::Json(layers) => json(&mut locked(layers), event, doing),
            Form::Bars(all, bars) => draw(all, &mut locked(bars), event),
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

fn plain(layers: &mut Vec<Descriptor>, event: TransferEvent, done: &str) {
    match event {
        TransferEvent::Asking(reference) => say(&format!("Pulling {reference}")),
        TransferEvent::Manifest(manifest) => say(&heading(&manifest)),
        TransferEvent::Layers(found) => *layers = found,
        TransferEvent::Layer(n, event) => {
            let Some(layer) = layers.get(n) else {
                return;
            };
            let (id, size) = (layer.digest.short(), table::size(layer.size));
            match event {
                LayerEvent::Waiting => say(&format!("{id}: another pull fetches it; waiting")),
                LayerEvent::Mounted => say(&format!("{id}: mounted from another repository")),
                LayerEvent::Done { existed: true } => say(&format!("{id}: already there")),
                LayerEvent::Done { existed: false } => say(&format!("{id}: {done}, {size}")),
                LayerEvent::Moved(_) | LayerEvent::Flushing => {}
            }
        }
    }
}

/// A manifest of an index: for which machine.
fn heading(manifest: &Descriptor) -> String {
    match &manifest.platform {
        Some(platform) => format!("{platform} {}", manifest.digest),
        None => manifest.digest.to_string(),
    }
}

fn json(layers: &mut Vec<(Descriptor, u64)>, event: TransferEvent, doing: &str) {
    let document = match event {
        TransferEvent::Asking(reference) => {
            serde_json::json!({"status": "resolving", "reference": reference.to_string()})
        }
        TransferEvent::Manifest(manifest) => {
            serde_json::json!({"status": "manifest", "digest": manifest.digest, "platform": manifest.platform})
        }
        TransferEvent::Layers(found) => {
            let all: Vec<_> = found
                .iter()
                .map(|l| serde_json::json!({"digest": l.digest, "size": l.size}))
                .collect();
            *layers = found.into_iter().map(|layer| (layer, 0)).collect();
            serde_json::json!({"status": "layers", "layers": all})
        }
        TransferEvent::Layer(n, event) => {
            let Some((layer, told)) = layers.get_mut(n) else {
                return;
            };
            let status = match event {
                LayerEvent::Waiting => "waiting",
                LayerEvent::Moved(bytes) => {
                    if bytes < *told + JSON_BYTES_STEP && bytes < layer.size {
                        return;
                    }
                    *told = bytes;
                    doing
                }
                LayerEvent::Flushing => "flushing",
                LayerEvent::Mounted => "mounted",
                LayerEvent::Done { existed: true } => "exists",
                LayerEvent::Done { existed: false } => "done",
            };
            let mut document = serde_json::json!({
                "status": status, "digest": layer.digest, "size": layer.size
            });
            if let LayerEvent::Moved(bytes) = event {
                document["read"] = bytes.into();
            }
            document
        }
    };
    say(&document.to_string());
}

fn draw(all: &MultiProgress, bars: &mut Vec<ProgressBar>, event: TransferEvent) {
    match event {
        TransferEvent::Asking(reference) => {
            let _ = all.println(format!("Pulling {reference}"));
        }
        TransferEvent::Manifest(manifest) => {
            let _ = all.println(heading(&manifest));
        }
        TransferEvent::Layers(layers) => {
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
        TransferEvent::Layer(n, event) => {
            let Some(bar) = bars.get(n) else {
                return;
            };
            match event {
                LayerEvent::Waiting => bar.set_message("another pull fetches it"),
                LayerEvent::Moved(bytes) => bar.set_position(bytes),
                LayerEvent::Flushing => bar.set_message("writing to disk"),
                LayerEvent::Mounted => bar.finish_with_message("mounted"),
                LayerEvent::Done { existed } => {
                    bar.finish_with_message(if existed { "already there" } else { "done" });
                }
            }
        }
    }
}
