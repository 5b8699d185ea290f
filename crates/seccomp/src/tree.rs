//! From what each number gets to a balanced tree of comparisons.
//!
//! Contract: [`Spans`] covers all numbers from 0 to 2³²−1 in order, neighbours with
//! the same decision being one span. [`Spans::tree`] gives the node that finds a
//! number's decision with about log₂ of the number of spans comparisons.
//!
//! How: a range of spans is split in the middle. Lone numbers in a span of others
//! (a forbidden call among allowed ones) are taken out by one equality test instead
//! of two bounds, so the middle is sought where no such number lies.

use crate::graph::{Graph, NUMBER, NodeId, Op, Test};

/// Lone numbers that one leaf asks for in a row.
const LONE_MAX: usize = 3;

/// Decisions over all numbers.
#[derive(Debug, Default)]
pub(crate) struct Spans {
    /// First number and decision, ascending.
    spans: Vec<(u32, NodeId)>,
}

impl Spans {
    /// From `first` on the decision is `node`. Numbers must ascend, from 0.
    pub fn push(&mut self, first: u32, node: NodeId) {
        match self.spans.last_mut() {
            Some((at, last)) if *at == first => *last = node,
            Some((_, last)) if *last == node => return,
            _ => self.spans.push((first, node)),
        }
        if let [.., (_, before), (_, last)] = self.spans[..]
            && before == last
        {
            self.spans.pop();
        }
    }

    /// The node that decides by number.
    pub fn tree(&self, graph: &mut Graph) -> NodeId {
        self.range(graph, 0, self.spans.len())
    }

    fn range(&self, graph: &mut Graph, from: usize, to: usize) -> NodeId {
        if let Some(leaf) = self.leaf(graph, from, to) {
            return leaf;
        }
        let at = self.split(from, to);
        let below = self.range(graph, from, at);
        let above = self.range(graph, at, to);
        let test = Test {
            word: NUMBER,
            op: Op::Ge,
            k: self.spans[at].0,
        };
        graph.test(test, above, below)
    }

    /// A range where all but a few lone numbers have one decision.
    fn leaf(&self, graph: &mut Graph, from: usize, to: usize) -> Option<NodeId> {
        if to - from > 2 * LONE_MAX + 1 {
            return None;
        }
        let spans = self.spans.get(from..to)?;
        let rest = match spans {
            [] => return None,
            [(_, only)] => return Some(*only),
            // The decision of a longer span, else of the first.
            _ => (from..to)
                .find(|&i| !self.lone(i))
                .map_or(spans[0].1, |i| self.spans[i].1),
        };
        let others = || (from..to).filter(|&i| self.spans[i].1 != rest);
        if others().count() > LONE_MAX || others().any(|i| !self.lone(i)) {
            return None;
        }
        Some(others().fold(rest, |no, i| {
            let (number, yes) = self.spans[i];
            let test = Test {
                word: NUMBER,
                op: Op::Eq,
                k: number,
            };
            graph.test(test, yes, no)
        }))
    }

    /// Whether a span is one number.
    fn lone(&self, at: usize) -> bool {
        let end = match self.spans.get(at + 1) {
            Some(&(next, _)) => u64::from(next),
            None => 1 << 32,
        };
        end == u64::from(self.spans[at].0) + 1
    }

    /// Whether a bound lies beside a lone number with one decision around it.
    fn beside_lone(&self, at: usize) -> bool {
        let around = |i: usize| {
            i > 0
                && self.lone(i)
                && matches!(self.spans.get(i - 1..i + 2), Some([a, _, b]) if a.1 == b.1)
        };
        around(at) || around(at - 1)
    }

    /// The bound to split at: near the middle, not beside a lone number.
    fn split(&self, from: usize, to: usize) -> usize {
        let middle = from.midpoint(to);
        let slack = (to - from) / 4;
        (0..=slack)
            .flat_map(|away| [middle + away, middle - away])
            .find(|&at| at > from && at < to && !self.beside_lone(at))
            .unwrap_or(middle)
    }
}
