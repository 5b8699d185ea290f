//! From the decision graph to instructions.
//!
//! Contract: the program does what the graph says, loads a word only on the ways
//! where the accumulator does not already hold it, and keeps every conditional jump
//! within the 8 bits it has.
//!
//! How: instructions are written from the last to the first, each node after those
//! it leads to. A branch whose target lies too far gets a stepping stone right
//! behind itself: a `ret` of its own when the target returns, else a `ja`. The
//! stone then serves later branches too. A node can have three entries: at its
//! load, at its mask, or at its comparison, for ways that arrive with the word
//! loaded, or loaded and masked.

use crate::action::RET_KILL_PROCESS;
use crate::error::CompileError;
use crate::graph::{Graph, Node, NodeId, Op, Word};
use crate::program::{INSTRUCTIONS_MAX, Instruction, code};

/// Farthest target of a conditional jump, less the two stones that may come between.
const REACH: usize = 255 - 2;

/// Where a way enters a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Entry {
    Load = 0,
    Mask = 1,
    Compare = 2,
}

/// What is known of a node while writing.
#[derive(Debug, Clone, Copy, Default)]
struct Place {
    /// Entries that some way takes.
    wanted: [bool; 3],
    /// Positions of the entries or of stones to them, counted from the end.
    at: [Option<usize>; 3],
}

/// Writes the program that starts at `root`.
pub(crate) fn emit(graph: &Graph, root: NodeId) -> Result<Vec<Instruction>, CompileError> {
    let order = reachable(graph, root)?;
    let mut writer = Writer {
        graph,
        places: vec![Place::default(); graph.len()],
        backwards: Vec::with_capacity(order.len() + order.len() / 4 + 8),
    };
    writer.want(root, None);
    for &id in &order {
        if let Node::Branch { test, yes, no } = graph.get(id) {
            writer.want(yes, Some(test.word));
            writer.want(no, Some(test.word));
        }
    }
    for &id in &order {
        writer.write(id);
        if writer.backwards.len() > INSTRUCTIONS_MAX {
            return Err(CompileError::TooLong);
        }
    }
    let mut program = writer.backwards;
    program.reverse();
    Ok(program)
}

/// Nodes that can be reached, each after those it leads to.
fn reachable(graph: &Graph, root: NodeId) -> Result<Vec<NodeId>, CompileError> {
    let mut order = Vec::with_capacity(graph.len());
    let mut seen = vec![false; graph.len()];
    let mut stack = vec![(root, false)];
    while let Some((id, done)) = stack.pop() {
        if done {
            order.push(id);
            if order.len() > INSTRUCTIONS_MAX {
                return Err(CompileError::TooLong);
            }
            continue;
        }
        if std::mem::replace(&mut seen[id as usize], true) {
            continue;
        }
        stack.push((id, true));
        if let Node::Branch { yes, no, .. } = graph.get(id) {
            stack.push((yes, false));
            stack.push((no, false));
        }
    }
    Ok(order)
}

struct Writer<'a> {
    graph: &'a Graph,
    places: Vec<Place>,
    backwards: Vec<Instruction>,
}

impl Writer<'_> {
    /// The entry that a way takes whose accumulator holds `held`.
    fn entry(&self, id: NodeId, held: Option<Word>) -> Entry {
        match (self.graph.get(id), held) {
            (Node::Return(_), _) => Entry::Compare,
            (Node::Branch { test, .. }, Some(held)) if held == test.word => Entry::Compare,
            (Node::Branch { test, .. }, Some(held))
                if held.offset == test.word.offset && held.mask == u32::MAX =>
            {
                Entry::Mask
            }
            _ => Entry::Load,
        }
    }

    fn want(&mut self, id: NodeId, held: Option<Word>) {
        let entry = self.entry(id, held);
        self.places[id as usize].wanted[entry as usize] = true;
    }

    /// Writes a node in front of everything written so far.
    fn write(&mut self, id: NodeId) {
        let (test, yes, no) = match self.graph.get(id) {
            // Written where a branch needs it.
            Node::Return(value) if self.backwards.is_empty() => {
                self.push(Instruction::ret(value));
                self.places[id as usize].at[Entry::Compare as usize] = Some(0);
                return;
            }
            Node::Return(_) => return,
            Node::Branch { test, yes, no } => (test, yes, no),
        };
        self.reach(yes, test.word);
        self.reach(no, test.word);
        let (jt, jf) = (self.distance(yes, test.word), self.distance(no, test.word));
        let code = match test.op {
            Op::Eq => code::JEQ,
            Op::Gt => code::JGT,
            Op::Ge => code::JGE,
            Op::Set => code::JSET,
        };
        let wanted = self.places[id as usize].wanted;
        self.push_entry(id, Entry::Compare, Instruction::new(code, jt, jf, test.k));
        let masked = test.word.mask != u32::MAX;
        if masked && (wanted[Entry::Mask as usize] || wanted[Entry::Load as usize]) {
            let and = Instruction::new(code::AND, 0, 0, test.word.mask);
            self.push_entry(id, Entry::Mask, and);
        }
        if wanted[Entry::Load as usize] {
            let load = Instruction::new(code::LD, 0, 0, u32::from(test.word.offset));
            self.push_entry(id, Entry::Load, load);
        }
    }

    fn push(&mut self, instruction: Instruction) {
        self.backwards.push(instruction);
    }

    fn push_entry(&mut self, id: NodeId, entry: Entry, instruction: Instruction) {
        self.push(instruction);
        self.places[id as usize].at[entry as usize] = Some(self.backwards.len() - 1);
    }

    /// Makes sure that a jump written soon can reach a node, with a stone if need be.
    fn reach(&mut self, id: NodeId, held: Word) {
        let entry = self.entry(id, Some(held));
        let at = self.places[id as usize].at[entry as usize];
        let next = self.backwards.len();
        let stone = match (at, self.graph.get(id)) {
            (Some(at), _) if next - at - 1 <= REACH => return,
            (_, Node::Return(value)) => Instruction::ret(value),
            (Some(at), _) => Instruction::new(code::JA, 0, 0, (next - at - 1) as u32),
            // Never so, as targets are written first; if it were, fail closed.
            (None, _) => Instruction::ret(RET_KILL_PROCESS),
        };
        self.push_entry(id, entry, stone);
    }

    /// How far the next instruction must jump to reach a node.
    fn distance(&self, id: NodeId, held: Word) -> u8 {
        let entry = self.entry(id, Some(held));
        let at = self.places[id as usize].at[entry as usize].unwrap_or_default();
        (self.backwards.len() - at - 1) as u8
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::{NUMBER, Test};
    use crate::program::{Program, SeccompData, simulate};

    fn eq(k: u32) -> Test {
        Test {
            word: NUMBER,
            op: Op::Eq,
            k,
        }
    }

    /// A chain so long that its far end is out of reach of an 8-bit jump.
    #[test]
    fn far_targets_are_reached_by_stepping_stones() {
        let mut graph = Graph::default();
        let (end, nothing) = (graph.ret(7), graph.ret(8));
        // A target that is no return, so that it cannot be repeated.
        let far = graph.test(
            Test {
                word: Word::whole(16),
                op: Op::Ge,
                k: 4,
            },
            end,
            nothing,
        );
        let other = graph.ret(9);
        let far = graph.test(
            Test {
                word: Word::whole(16),
                op: Op::Gt,
                k: 3,
            },
            far,
            other,
        );
        let mut head = graph.ret(0);
        for k in (0..1500).rev() {
            let target = if k % 3 == 0 { far } else { graph.ret(k) };
            head = graph.test(eq(k), target, head);
        }
        let program = Program {
            instructions: emit(&graph, head).unwrap(),
            flags: 0,
            listener: false,
        };
        program.check_shape().unwrap();
        for k in 0..1600 {
            for arg in [0, 3, 4, 9] {
                let mut data = SeccompData {
                    nr: k,
                    ..SeccompData::default()
                };
                data.args[0] = arg;
                let want = match k {
                    1500.. => 0,
                    _ if k % 3 != 0 => k,
                    _ if arg > 3 => 7,
                    _ => 9,
                };
                assert_eq!(simulate(&program, &data), want, "{k} {arg}");
            }
        }
    }

    #[test]
    fn a_graph_too_large_for_the_kernel_is_an_error() {
        let mut graph = Graph::default();
        let mut head = graph.ret(0);
        for k in 0..5000 {
            let target = graph.ret(k & 1);
            head = graph.test(eq(k), target, head);
        }
        assert_eq!(emit(&graph, head), Err(CompileError::TooLong));
    }
}
