//! The decision graph between rules and instructions.
//!
//! Contract: a [`Graph`] holds tests and returns, each once (equal nodes are one
//! node), and every edge leads to a node made before, so that there is no cycle.
//! What a node means never changes after it was made.
//!
//! A test reads one 32-bit word of `struct seccomp_data`, may mask it, and compares
//! it with a constant. [`Graph::test`] brings tests into one form: a test whose
//! answer is known is not made at all, and a masked comparison with zero or with a
//! single bit becomes `Set`, which spares the masking instruction.

/// Index of a node.
pub(crate) type NodeId = u32;

/// A comparison with a constant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Op {
    /// Equal.
    Eq,
    /// Above.
    Gt,
    /// At least.
    Ge,
    /// A common bit.
    Set,
}

/// A word of `struct seccomp_data` under a mask.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Word {
    /// Bytes from the start.
    pub offset: u8,
    /// Bits that count.
    pub mask: u32,
}

impl Word {
    /// The whole word.
    pub const fn whole(offset: u8) -> Word {
        Word {
            offset,
            mask: u32::MAX,
        }
    }
}

/// A question about a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Test {
    pub word: Word,
    pub op: Op,
    pub k: u32,
}

/// A node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Node {
    /// The filter's answer.
    Return(u32),
    /// A test and where its two answers lead.
    Branch { test: Test, yes: NodeId, no: NodeId },
}

/// The nodes.
#[derive(Debug, Default)]
pub(crate) struct Graph {
    nodes: Vec<Node>,
    /// Ids by hash of the node, with linear probing; at most half full, and its length
    /// a power of two. Ordered maps cost a third of the time of a whole compilation.
    slots: Vec<NodeId>,
}

/// A slot without an id.
const FREE: NodeId = NodeId::MAX;
const SLOTS_MIN: usize = 1024;

impl Graph {
    /// The node that returns a value.
    pub fn ret(&mut self, value: u32) -> NodeId {
        self.node(Node::Return(value))
    }

    /// The node that asks a question, or what it leads to where the answer is plain.
    pub fn test(&mut self, mut test: Test, mut yes: NodeId, mut no: NodeId) -> NodeId {
        let mask = test.word.mask;
        if test.op == Op::Eq && mask != u32::MAX {
            if test.k & !mask != 0 {
                return no;
            } else if mask == 0 {
                return yes;
            } else if test.k == 0 || (test.k == mask && mask.is_power_of_two()) {
                if test.k == 0 {
                    std::mem::swap(&mut yes, &mut no);
                }
                test = Test {
                    word: Word::whole(test.word.offset),
                    op: Op::Set,
                    k: mask,
                };
            }
        }
        match (test.op, test.k) {
            _ if yes == no => yes,
            (Op::Ge, 0) => yes,
            (Op::Gt, u32::MAX) | (Op::Set, 0) => no,
            _ => self.node(Node::Branch { test, yes, no }),
        }
    }

    fn node(&mut self, node: Node) -> NodeId {
        if self.nodes.len() * 2 >= self.slots.len() {
            self.grow();
        }
        let slot = self.slot(node);
        if self.slots[slot] == FREE {
            self.slots[slot] = self.nodes.len() as NodeId;
            self.nodes.push(node);
        }
        self.slots[slot]
    }

    /// Where the id of a node is, or would be.
    fn slot(&self, node: Node) -> usize {
        let mask = self.slots.len() - 1;
        let mut slot = hash(node) as usize & mask;
        while let Some(&id) = self.slots.get(slot)
            && id != FREE
            && self.nodes[id as usize] != node
        {
            slot = (slot + 1) & mask;
        }
        slot
    }

    fn grow(&mut self) {
        self.slots = vec![FREE; (self.slots.len() * 2).max(SLOTS_MIN)];
        for id in 0..self.nodes.len() {
            let slot = self.slot(self.nodes[id]);
            self.slots[slot] = id as NodeId;
        }
    }

    /// The node with an id. Ids come from this graph alone.
    pub fn get(&self, id: NodeId) -> Node {
        self.nodes[id as usize]
    }

    /// How many nodes were made.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }
}

fn hash(node: Node) -> u32 {
    let mix = |sum: u64, word: u32| (sum ^ u64::from(word)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let sum = match node {
        Node::Return(value) => mix(1, value),
        Node::Branch { test, yes, no } => {
            let what = u32::from(test.word.offset) << 8 | test.op as u32;
            [test.word.mask, test.k, yes, no]
                .into_iter()
                .fold(mix(2, what).rotate_left(23), |sum, word| {
                    mix(sum, word).rotate_left(23)
                })
        }
    };
    (sum >> 32) as u32 ^ sum as u32
}

/// The offset of a half of an argument.
pub(crate) const fn argument(index: u8, upper: bool, big_endian: bool) -> u8 {
    16 + 8 * index + if upper != big_endian { 4 } else { 0 }
}

/// Offset of the number.
pub(crate) const NUMBER: Word = Word::whole(0);
/// Offset of the architecture.
pub(crate) const ARCH: Word = Word::whole(4);
