//! From the cases of one call to a part of the decision graph.
//!
//! Contract: [`Checks::build`] gives the node that decides a call by its arguments.
//! Cases are tried in a fixed order and the first that holds decides; the default comes
//! last.
//!
//! The order is that of libseccomp's tree, which matters only where rules of different
//! actions overlap. Conditions are sorted by argument, and each counts as two steps, its
//! upper half and its lower half (one step on 32-bit ABIs). Cases with equal first steps
//! stay together. Among different first steps, the higher argument comes first; then
//! equality and its negation before upper bounds before lower bounds; then, half by
//! half, the tighter bound, for equality the larger value; then the earlier rule. A case
//! comes before those that begin with all its conditions and so hides them, unless they
//! were written before it (which libseccomp refuses).
//!
//! How: the cases become a chain of tests on 32-bit words from the last to the
//! first. Then one pass from the first to the last carries the facts that hold on
//! every way to a test, and leads each answer past the tests it already settles. So
//! a word that many rules share is asked once: five allowed values of `personality`
//! cost one test of the upper half and five of the lower.

use crate::error::{CompileError, Field};
use crate::graph::{Graph, Node, NodeId, Op, Test, Word, argument};
use crate::rules::{Case, Condition, Operator};
use std::cmp::Reverse;
use std::collections::BTreeMap;

/// How many facts a way carries. More are dropped, which costs instructions only.
const FACTS_MAX: usize = 24;

/// Tests of one chain before the filter cannot fit any more.
const CHAIN_MAX: usize = 6 * crate::INSTRUCTIONS_MAX;

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
        let cases = self.in_order(cases);
        self.refuse_conflicts(&cases, name)?;
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

impl Checks {
    /// Cases in the order in which they are tried.
    fn in_order<'a>(&self, cases: &[&'a Case]) -> Vec<&'a Case> {
        let steps = |case: &&Case| case.all_of.iter().flat_map(|c| self.steps(c)).collect();
        let steps: Vec<Vec<Step>> = cases.iter().map(steps).collect();
        let mut order = Vec::with_capacity(cases.len());
        by_step(&steps, 0, (0..cases.len()).collect(), &mut order);
        order
            .into_iter()
            .filter_map(|at| cases.get(at).copied())
            .collect()
    }

    /// What libseccomp's tree has for a condition: a node for each half.
    fn steps(&self, c: &Condition) -> impl Iterator<Item = Step> {
        let narrow = (!self.wide).then_some(false);
        let halves = [true, false]
            .into_iter()
            .filter(move |h| narrow.is_none_or(|n| n == *h));
        let c = *c;
        halves.map(move |upper| {
            let part = |value: u64| (value >> if upper { 32 } else { 0 }) as u32;
            let (class, ascending, op) = match c.op {
                Operator::Eq | Operator::Ne => (0, false, 0),
                Operator::Le => (1, true, 1),
                Operator::Lt => (1, true, if upper { 1 } else { 2 }),
                Operator::Gt => (2, false, 1),
                Operator::Ge => (2, false, if upper { 1 } else { 2 }),
            };
            let (value, mask) = (part(c.value), part(c.mask));
            Step {
                key: (
                    Reverse(c.arg),
                    class,
                    if ascending { value } else { !value },
                ),
                node: (c.arg, op, value, mask),
            }
        })
    }

    /// The same conditions with different actions contradict each other.
    fn refuse_conflicts(
        &self,
        cases: &[&Case],
        name: impl Fn() -> String,
    ) -> Result<(), CompileError> {
        let mut seen = BTreeMap::new();
        for case in cases {
            let first = *seen.entry(&case.all_of).or_insert(*case);
            if first.value != case.value {
                return Err(CompileError::Conflict {
                    field: Field::Rule(case.rule.max(first.rule)),
                    earlier: case.rule.min(first.rule),
                    name: name(),
                });
            }
        }
        Ok(())
    }
}

/// A node of the tree that libseccomp orders rules by.
#[derive(Debug, Clone, Copy)]
struct Step {
    /// Where it stands among its siblings.
    key: (Reverse<u8>, u8, u32),
    /// What makes two steps one node: argument, comparison, value and mask.
    node: (u8, u8, u32, u32),
}

/// Orders cases by their steps from `depth` on. A case that ends there comes before all
/// that go on, but for those written before it; the others are put together by node, and
/// nodes are sorted by key, then by first come.
fn by_step(steps: &[Vec<Step>], depth: usize, mut cases: Vec<usize>, order: &mut Vec<usize>) {
    let step_of = |case: usize| steps.get(case).and_then(|steps| steps.get(depth));
    if let Some(end) = cases.iter().position(|&case| step_of(case).is_none()) {
        let (ended, after): (Vec<_>, Vec<_>) = cases
            .split_off(end)
            .into_iter()
            .partition(|&case| step_of(case).is_none());
        by_step(steps, depth, cases, order);
        order.extend(ended);
        cases = after;
    }
    let mut nodes: Vec<(Step, Vec<usize>)> = Vec::new();
    let mut found = BTreeMap::new();
    for case in cases {
        let Some(step) = step_of(case) else {
            continue;
        };
        let at = *found.entry(step.node).or_insert(nodes.len());
        match nodes.get_mut(at) {
            Some((_, cases)) => cases.push(case),
            None => nodes.push((*step, vec![case])),
        }
    }
    // The sort is stable: ties stay in the order of the profile.
    nodes.sort_by_key(|(step, _)| step.key);
    for (_, cases) in nodes {
        by_step(steps, depth + 1, cases, order);
    }
}

/// What holds on every way to a node: tests and their answers.
#[derive(Debug, Clone, Default)]
struct Facts(Vec<(Test, bool)>);

impl Facts {
    fn with(&self, test: Test, answer: bool) -> Facts {
        let mut facts = self.clone();
        if facts.0.len() == FACTS_MAX {
            // That a word has not some one value settles least.
            let least = facts.0.iter().position(|(t, yes)| t.op == Op::Eq && !yes);
            facts.0.remove(least.unwrap_or(0));
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
