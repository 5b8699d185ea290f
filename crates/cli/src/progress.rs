//! Tells how a transfer gets on, always on standard error, so that standard output has the result alone.
//!
//! | form | when | what |
//! |---|---|---|
//! | bars | a terminal, or `--progress tty` on one | a bar for each layer that moves, and one for all of them |
//! | lines | elsewhere, or `--progress plain` | one for each layer that is done |
//! | JSON | `--progress json` | one document a line: `status`, `digest`, `size`, and `read` of a layer that moves |
//!
//! With bars a layer that is done becomes a line as well, above the bars, so an image may have any number of
//! layers. The bars are gone when the transfer ends, however it ends.

use crate::registry_args::ProgressMode;
use crate::{logging, table};
use carrack_engine::images::{LayerEvent, TransferEvent};
use carrack_spec::image::Descriptor;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use std::io::Write;
use std::sync::{Mutex, MutexGuard, PoisonError};

const LAYER: &str = "{prefix:12} [{wide_bar}] {decimal_bytes:>9} / {decimal_total_bytes:<9} {msg}";
const ALL: &str =
    "{msg:12} [{wide_bar}] {decimal_bytes:>9} / {decimal_total_bytes:<9} {decimal_bytes_per_sec}";
const WITHOUT_END: &str = "{msg:12} {spinner} {decimal_bytes:>9} {decimal_bytes_per_sec}";
/// Bytes of a layer between two JSON documents.
const JSON_BYTES_STEP: u64 = 1 << 20;

/// Where bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// Into the store, from a registry or another place.
    In,
    /// Into the store, from an archive.
    Load,
    /// Out of it.
    Out,
    /// Out of it, into files.
    Save,
    /// From one place to another.
    Across,
}

impl Direction {
    /// What was done, and what is being done.
    fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::In => ("pulled", "pulling"),
            Self::Load => ("loaded", "loading"),
            Self::Out => ("pushed", "pushing"),
            Self::Save => ("saved", "saving"),
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
    None,
    Plain(Mutex<Vec<Descriptor>>),
    /// The layers, and how many bytes of each were told.
    Json(Mutex<Vec<(Descriptor, u64)>>),
    Bars(Mutex<Bars>),
}

impl Progress {
    /// The way of telling for a mode.
    pub fn new(direction: Direction, mode: ProgressMode, quiet: bool) -> Self {
        let form = match mode {
            _ if quiet => Form::None,
            ProgressMode::None => Form::None,
            ProgressMode::Json => Form::Json(Mutex::default()),
            ProgressMode::Tty | ProgressMode::Auto if on_terminal() => {
                Form::Bars(Mutex::new(Bars::new()))
            }
            ProgressMode::Tty | ProgressMode::Auto | ProgressMode::Plain => {
                Form::Plain(Mutex::default())
            }
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
            Form::Bars(bars) => locked(bars).draw(event, done),
        }
    }
}

/// Whether standard error is a terminal on which lines can be drawn anew.
fn on_terminal() -> bool {
    let dumb = std::env::var_os("TERM").is_none_or(|term| term.is_empty() || term == "dumb");
    rustix::termios::isatty(std::io::stderr()) && !dumb
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A closed standard error ends nothing.
fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

fn asking(reference: &carrack_spec::Reference) -> String {
    format!("Pulling {reference}")
}

/// A manifest of an index: for which machine.
fn heading(manifest: &Descriptor) -> String {
    match &manifest.platform {
        Some(platform) => format!("Image for {platform}, {}", manifest.digest.short()),
        None => format!("Image {}", manifest.digest.short()),
    }
}

/// What is worth a line of a layer.
fn line(layer: &Descriptor, event: LayerEvent, done: &str) -> Option<String> {
    let (id, size) = (layer.digest.short(), table::size(layer.size));
    match event {
        LayerEvent::Waiting => Some(format!("{id}: another pull fetches it; waiting")),
        LayerEvent::Mounted => Some(format!("{id}: mounted from another repository")),
        LayerEvent::Done { existed: true } => Some(format!("{id}: already there")),
        LayerEvent::Done { existed: false } => Some(format!("{id}: {done}, {size}")),
        LayerEvent::Moved(_) | LayerEvent::Flushing => None,
    }
}

fn plain(layers: &mut Vec<Descriptor>, event: TransferEvent, done: &str) {
    match event {
        TransferEvent::Asking(reference) => say(&asking(&reference)),
        TransferEvent::Manifest(manifest) => say(&heading(&manifest)),
        TransferEvent::Layers(found) => *layers = found,
        TransferEvent::Layer(n, event) => {
            if let Some(line) = layers.get(n).and_then(|layer| line(layer, event, done)) {
                say(&line);
            }
        }
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
                    let step = bytes >= *told + JSON_BYTES_STEP || bytes >= layer.size;
                    if !step || bytes <= *told {
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

/// The lower end of the terminal.
struct Bars {
    all: MultiProgress,
    /// The layers of the image that is on its way.
    layers: Vec<Layer>,
    /// The bar for all of them, below the others.
    total: ProgressBar,
    done: usize,
}

struct Layer {
    descriptor: Descriptor,
    bar: Option<ProgressBar>,
    moved: u64,
}

impl Bars {
    fn new() -> Self {
        let all = MultiProgress::new();
        logging::beside(Some(all.clone()));
        Self {
            all,
            layers: Vec::new(),
            total: ProgressBar::hidden(),
            done: 0,
        }
    }

    fn draw(&mut self, event: TransferEvent, done: &str) {
        match event {
            TransferEvent::Asking(reference) => self.say(&asking(&reference)),
            TransferEvent::Manifest(manifest) => self.say(&heading(&manifest)),
            TransferEvent::Layers(layers) => self.begin(layers),
            TransferEvent::Layer(n, event) => self.layer(n, event, done),
        }
    }

    /// A line above the bars, which stays.
    fn say(&self, line: &str) {
        let _ = self.all.println(line);
    }

    fn begin(&mut self, layers: Vec<Descriptor>) {
        self.clear();
        let bytes = layers.iter().map(|layer| layer.size).sum();
        self.total = self.all.add(bar(bytes, ALL));
        self.done = 0;
        let layer = |descriptor| Layer {
            descriptor,
            bar: None,
            moved: 0,
        };
        self.layers = layers.into_iter().map(layer).collect();
        self.count();
    }

    fn count(&self) {
        let layers = self.layers.len();
        self.total
            .set_message(format!("{}/{layers} layers", self.done));
    }

    fn layer(&mut self, n: usize, event: LayerEvent, done: &str) {
        let Some(layer) = self.layers.get_mut(n) else {
            return;
        };
        let size = layer.descriptor.size;
        let moved = match event {
            LayerEvent::Moved(bytes) => bytes.min(size),
            LayerEvent::Mounted | LayerEvent::Done { .. } => size,
            LayerEvent::Waiting | LayerEvent::Flushing => layer.moved,
        };
        self.total.inc(moved.saturating_sub(layer.moved));
        layer.moved = moved;
        if matches!(event, LayerEvent::Mounted | LayerEvent::Done { .. }) {
            let line = line(&layer.descriptor, event, done).unwrap_or_default();
            if let Some(bar) = layer.bar.take() {
                bar.finish_and_clear();
                self.all.remove(&bar);
            }
            self.done += 1;
            self.say(&line);
            self.count();
            return;
        }
        let (all, total) = (&self.all, &self.total);
        let bar = layer.bar.get_or_insert_with(|| {
            let bar = all.insert_before(total, bar(size, LAYER));
            bar.set_prefix(layer.descriptor.digest.short().to_owned());
            bar
        });
        match event {
            LayerEvent::Waiting => bar.set_message("waiting"),
            LayerEvent::Flushing => bar.set_message("writing"),
            _ => bar.set_position(moved),
        }
    }

    fn clear(&mut self) {
        for layer in self.layers.drain(..) {
            if let Some(bar) = layer.bar {
                bar.finish_and_clear();
                self.all.remove(&bar);
            }
        }
        self.total.finish_and_clear();
        self.all.remove(&self.total);
    }
}

impl Drop for Bars {
    fn drop(&mut self) {
        self.clear();
        let _ = self.all.clear();
        logging::beside(None);
    }
}

fn bar(bytes: u64, template: &str) -> ProgressBar {
    let style = ProgressStyle::with_template(template)
        .map(|style| style.progress_chars("=> "))
        .unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(bytes).with_style(style)
}

/// A stream of bytes that are counted on the terminal while they are written; the count is gone when it is
/// dropped.
pub struct Counted<W> {
    output: W,
    bar: Option<ProgressBar>,
}

impl<W> Counted<W> {
    /// `bytes` is how many there will be, where that is known.
    pub fn new(output: W, doing: &'static str, bytes: Option<u64>, quiet: bool) -> Self {
        let shown = !quiet && on_terminal();
        let bar = shown.then(|| match bytes {
            Some(bytes) => bar(bytes, ALL),
            None => bar(0, WITHOUT_END),
        });
        if let Some(bar) = &bar {
            bar.set_message(doing);
        }
        Self { output, bar }
    }
}

impl<W: Write> Write for Counted<W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let written = self.output.write(bytes)?;
        if let Some(bar) = &self.bar {
            bar.inc(written as u64);
        }
        Ok(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.output.flush()
    }
}

impl<W> Drop for Counted<W> {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
