//! From the cases of one call to a part of the decision graph.
//!
//! Contract: [`Checks::build`] gives the node that decides a call by its arguments.
//! Cases are tried in one fixed order and the first that holds decides; the default
//! comes last. The order depends on the conditions alone, never on their place in
//! the profile (see [`precedence`]), and equals libseccomp's where that has one.
//!
//! How: the cases become a chain of tests on 32-bit words from the last to the
//! first. Then one pass from the first to the last carries the facts that hold on
//! every way to a test, and leads each answer past the tests it already settles. So
//! a word that many rules share is asked once: five allowed values of `personality`
//! cost one test of the upper half and five of the lower.

use crate::error::{CompileError, Field};
use crate::graph::{Graph, Node, NodeId, Op, Test, Word, argument};
use crate::rules::{Case, Condition, Operator};
use std::cmp::{Ordering, Reverse};

/// How many facts a way carries. More are dropped, which costs instructions only.
const FACTS_MAX: usize = 24;

/// Tests of one chain before the filter cannot fit any more.
const CHAIN_MAX: usize = 16 * crate::INSTRUCTIONS_MAX;

/// Builds the checks of calls for one architecture.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Checks {
    /// Whether conditions look at both halves of arguments.
    pub wide: bool,
    /// Whether the upper half comes first in memory.
    pub big_endian: bool,
    /// What a call gets when no case holds.
    pub default: u32,
}

impl Checks {
    /// The node that decides a call. `name` is for the error alone.
    pub fn build(
        &self,
        graph: &mut Graph,
        cases: &[&Case],
        name: impl Fn() -> String,
    ) -> Result<NodeId, CompileError> {
        let mut cases = cases.to_vec();
        cases.sort_by(|a, b| precedence(&a.all_of, &b.all_of));
        for pair in cases.windows(2) {
            if let [a, b] = pair
                && a.all_of == b.all_of
                && a.value != b.value
            {
                return Err(CompileError::Conflict {
                    field: Field::Rule(a.rule.max(b.rule)),
                    earlier: a.rule.min(b.rule),
                    name: name(),
                });
            }
        }
        cases.dedup_by(|a, b| a.all_of == b.all_of);
        let mut chain = Graph::default();
        let mut head = chain.ret(self.default);
        for case in cases.iter().rev() {
            let mut holds = chain.ret(case.value);
            for condition in case.all_of.iter().rev() {
                holds = self.condition(&mut chain, condition, holds, head);
            }
            head = holds;
            if chain.len() > CHAIN_MAX {
                return Err(CompileError::TooLong);
            }
        }
        Ok(settle(&chain, head, graph))
    }

    /// The test of one condition.
    fn condition(&self, graph: &mut Graph, c: &Condition, yes: NodeId, no: NodeId) -> NodeId {
        match c.op {
            Operator::Eq => self.equal(graph, c, yes, no),
            Operator::Ne => self.equal(graph, c, no, yes),
            Operator::Gt => self.above(graph, c, Op::Gt, yes, no),
            Operator::Ge => self.above(graph, c, Op::Ge, yes, no),
            Operator::Le => self.above(graph, c, Op::Gt, no, yes),
            Operator::Lt => self.above(graph, c, Op::Ge, no, yes),
        }
    }

    fn equal(&self, graph: &mut Graph, c: &Condition, yes: NodeId, no: NodeId) -> NodeId {
        let lower = graph.test(self.half(c, false, Op::Eq), yes, no);
        if !self.wide {
            return lower;
        }
        graph.test(self.half(c, true, Op::Eq), lower, no)
    }

    fn above(&self, graph: &mut Graph, c: &Condition, op: Op, yes: NodeId, no: NodeId) -> NodeId {
        let lower = graph.test(self.half(c, false, op), yes, no);
        if !self.wide {
            return lower;
        }
        let equal = graph.test(self.half(c, true, Op::Eq), lower, no);
        graph.test(self.half(c, true, Op::Gt), yes, equal)
    }

    fn half(&self, c: &Condition, upper: bool, op: Op) -> Test {
        let part = |value: u64| (value >> if upper { 32 } else { 0 }) as u32;
        Test {
            word: Word {
                offset: argument(c.arg, upper, self.big_endian),
                mask: part(c.mask),
            },
            op,
            k: part(c.value),
        }
    }
}

/// The order in which cases are tried.
///
/// Condition by condition, in the order of their arguments: the higher argument
/// first; then equality and its negation before upper bounds before lower bounds;
/// then the tighter bound, and for equality the larger value. Of two cases of which
/// one begins with all conditions of the other, the shorter comes first.
fn precedence(a: &[Condition], b: &[Condition]) -> Ordering {
    a.iter().map(rank).cmp(b.iter().map(rank))
}

fn rank(c: &Condition) -> impl Ord + use<> {
    let (class, value) = match c.op {
        Operator::Eq | Operator::Ne => (0, !c.value),
        Operator::Lt | Operator::Le => (1, c.value),
        Operator::Gt | Operator::Ge => (2, !c.value),
    };
    (Reverse(c.arg), class, value, c.mask, c.op)
}

/// What holds on every way to a node: tests and their answers.
#[derive(Debug, Clone, Default)]
struct Facts(Vec<(Test, bool)>);

impl Facts {
    fn with(&self, test: Test, answer: bool) -> Facts {
        let mut facts = self.clone();
        if facts.0.len() == FACTS_MAX {
            facts.0.remove(0);
        }
        facts.0.push((test, answer));
        facts
    }

    fn keep_common(&mut self, other: &Facts) {
        self.0.retain(|fact| other.0.contains(fact));
    }

    /// The answer to a test, where the facts settle it.
    fn answer(&self, test: Test) -> Option<bool> {
        let (mut min, mut max) = (0, u32::MAX);
        for &(known, answer) in &self.0 {
            if known == test {
                return Some(answer);
            }
            if known.word != Word::whole(test.word.offset) {
                continue;
            }
            match (known.op, answer) {
                (Op::Eq, true) => (min, max) = (known.k, known.k),
                (Op::Gt, true) => min = min.max(known.k.saturating_add(1)),
                (Op::Gt, false) => max = max.min(known.k),
                (Op::Ge, true) => min = min.max(known.k),
                (Op::Ge, false) => max = max.min(known.k.saturating_sub(1)),
                (Op::Eq, false) | (Op::Set, _) => {}
            }
        }
        if min == max {
            let value = min & test.word.mask;
            return Some(match test.op {
                Op::Eq => value == test.k,
                Op::Gt => value > test.k,
                Op::Ge => value >= test.k,
                Op::Set => value & test.k != 0,
            });
        }
        match test.op {
            _ if test.word.mask != u32::MAX => None,
            Op::Eq if test.k < min || test.k > max => Some(false),
            Op::Gt if min > test.k => Some(true),
            Op::Gt if max <= test.k => Some(false),
            Op::Ge if min >= test.k => Some(true),
            Op::Ge if max < test.k => Some(false),
            _ => None,
        }
    }
}

/// Copies a chain into the graph and leads every answer past settled tests.
fn settle(chain: &Graph, head: NodeId, graph: &mut Graph) -> NodeId {
    // Edges lead to smaller ids, so this order sees every way to a node before it.
    let mut facts: Vec<Option<Facts>> = vec![None; head as usize + 1];
    let mut edges = vec![None; head as usize + 1];
    if let Some(start) = facts.last_mut() {
        *start = Some(Facts::default());
    }
    for id in (0..=head).rev() {
        let Node::Branch { test, yes, no } = chain.get(id) else {
            continue;
        };
        let Some(here) = facts.get_mut(id as usize).and_then(Option::take) else {
            continue;
        };
        let mut lead = |mut to: NodeId, answer: bool| {
            let there = here.with(test, answer);
            while let Node::Branch { test, yes, no } = chain.get(to) {
                match there.answer(test) {
                    Some(true) => to = yes,
                    Some(false) => to = no,
                    None => break,
                }
            }
            match facts.get_mut(to as usize) {
                Some(Some(known)) => known.keep_common(&there),
                Some(empty) => *empty = Some(there),
                None => {}
            }
            to
        };
        edges[id as usize] = Some((lead(yes, true), lead(no, false)));
    }
    // Smaller ids first, so that the targets of an edge have their new ids.
    let mut placed: Vec<NodeId> = Vec::with_capacity(edges.len());
    for (id, edge) in edges.iter().enumerate() {
        let new = match (chain.get(id as NodeId), edge) {
            (Node::Return(value), _) => graph.ret(value),
            (Node::Branch { test, .. }, &Some((yes, no))) => {
                graph.test(test, placed[yes as usize], placed[no as usize])
            }
            // No way leads here, so no edge does.
            (Node::Branch { .. }, None) => NodeId::MAX,
        };
        placed.push(new);
    }
    placed.last().copied().unwrap_or_default()
}
