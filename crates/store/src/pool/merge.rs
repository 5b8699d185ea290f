//! Layers on top of one another: the tree that overlayfs would show. Pure.

use super::layer::{LayerTree, WHITEOUT, directory};
use crate::erofs::{Content, InodeId, Tree};
use std::collections::HashMap;

/// A tree without layers.
pub(crate) fn nothing() -> Tree {
    Tree::new(directory((0, 0)))
}

/// The tree of one layer upon nothing. As [`merge`] would make it, but it is the layer's own.
pub(crate) fn alone(layer: LayerTree) -> Tree {
    let mut tree = layer.tree;
    for id in tree.ids() {
        let Some(names) = tree.names_mut(id) else {
            continue;
        };
        let mut names = std::mem::take(names);
        names.retain(|_, child| tree.get(*child).content != WHITEOUT);
        if let Some(place) = tree.names_mut(id) {
            *place = names;
        }
    }
    tree
}

/// Puts `upper` on top of `lower`.
pub(crate) fn merge(lower: &mut Tree, upper: LayerTree) {
    let LayerTree {
        tree: mut upper,
        opaque,
        implied,
    } = upper;
    // Of an inode with several names: where it is below.
    let mut moved: HashMap<InodeId, InodeId> = HashMap::new();
    let mut todo = vec![(InodeId::ROOT, InodeId::ROOT)];
    while let Some((below, above)) = todo.pop() {
        let taken = std::mem::replace(&mut upper.get_mut(above).content, Content::Fifo);
        let Content::Directory(names) = taken else {
            continue;
        };
        if !implied.contains(&above) {
            let new = upper.get(above).clone();
            let content = std::mem::replace(&mut lower.get_mut(below).content, Content::Fifo);
            *lower.get_mut(below) = crate::erofs::Inode { content, ..new };
        }
        if opaque.contains(&above)
            && let Some(names) = lower.names_mut(below)
        {
            names.clear();
        }
        for (name, id) in names {
            let there = lower.child(below, &name);
            let new = if let Some(new) = moved.get(&id) {
                *new
            } else {
                match &upper.get(id).content {
                    content if *content == WHITEOUT => {
                        lower.names_mut(below).map(|n| n.remove(&name));
                        continue;
                    }
                    Content::Directory(_) => {
                        let is_directory =
                            |id: &InodeId| matches!(lower.get(*id).content, Content::Directory(_));
                        let into = there.filter(is_directory).unwrap_or_else(|| {
                            let time = upper.get(id).mtime;
                            lower.add(directory(time))
                        });
                        todo.push((into, id));
                        into
                    }
                    _ => {
                        let inode = std::mem::replace(upper.get_mut(id), directory((0, 0)));
                        let new = lower.add(inode);
                        moved.insert(id, new);
                        new
                    }
                }
            };
            if there != Some(new) {
                lower.names_mut(below).map(|n| n.insert(name, new));
            }
        }
    }
}
