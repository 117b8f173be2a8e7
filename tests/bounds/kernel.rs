//! Arithmetic in 32 bits, in the ways in which kernels do it.

/// In which order terms are added.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Order {
    Serial,
    Reversed,
    Pairwise,
    /// So many partial sums side by side, added up one after the other.
    Lanes(usize),
    /// With a running compensation.
    Kahan,
}

/// How the functions of a library round.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Library {
    Nearest,
    /// Off by up to a unit in the last place.
    Up,
    Down,
}

/// One way to compute.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Kernel {
    pub order: Order,
    /// Fused multiply-add.
    pub fused: bool,
    pub library: Library,
    /// What is below the smallest normal number becomes 0, as on most accelerators.
    pub flush: bool,
}

const fn kernel(order: Order, fused: bool, library: Library, flush: bool) -> Kernel {
    Kernel { order, fused, library, flush }
}

/// Those that are tried.
pub const KERNELS: [Kernel; 10] = [
    kernel(Order::Serial, false, Library::Nearest, false),
    kernel(Order::Serial, true, Library::Up, false),
    kernel(Order::Reversed, false, Library::Down, false),
    kernel(Order::Reversed, true, Library::Nearest, true),
    kernel(Order::Pairwise, false, Library::Up, false),
    kernel(Order::Lanes(4), false, Library::Nearest, true),
    kernel(Order::Lanes(8), true, Library::Down, false),
    kernel(Order::Lanes(16), true, Library::Nearest, false),
    kernel(Order::Kahan, false, Library::Up, true),
    kernel(Order::Kahan, false, Library::Nearest, false),
];

impl Kernel {
    /// What is stored of a number.
    pub fn keep(self, x: f32) -> f32 {
        if self.flush && x.is_subnormal() { 0.0 } else { x }
    }

    fn add_product(self, sum: f32, a: f32, b: f32) -> f32 {
        self.keep(if self.fused { a.mul_add(b, sum) } else { sum + self.keep(a * b) })
    }

    /// `Σ a b`.
    pub fn dot(self, a: &[f32], b: &[f32]) -> f32 {
        let serial = |start: f32, pairs: &mut dyn Iterator<Item = (&f32, &f32)>| {
            pairs.fold(start, |sum, (a, b)| self.add_product(sum, *a, *b))
        };
        match self.order {
            Order::Serial => serial(0.0, &mut a.iter().zip(b)),
            Order::Reversed => serial(0.0, &mut a.iter().zip(b).rev()),
            Order::Pairwise => {
                let terms: Vec<f32> = a.iter().zip(b).map(|(a, b)| self.keep(a * b)).collect();
                self.pairwise(&terms)
            }
            Order::Lanes(n) => {
                let lane =
                    |i: usize| serial(0.0, &mut a.iter().skip(i).step_by(n).zip(b.iter().skip(i).step_by(n)));
                (0..n).map(lane).fold(0.0, |sum, lane| self.keep(sum + lane))
            }
            Order::Kahan => {
                let (mut sum, mut lost) = (0.0f32, 0.0f32);
                for (a, b) in a.iter().zip(b) {
                    let term = self.keep(a * b) - lost;
                    let next = sum + term;
                    lost = (next - sum) - term;
                    sum = next;
                }
                self.keep(sum)
            }
        }
    }

    fn pairwise(self, terms: &[f32]) -> f32 {
        match terms {
            [] => 0.0,
            [one] => *one,
            _ => {
                let (left, right) = terms.split_at(terms.len() / 2);
                self.keep(self.pairwise(left) + self.pairwise(right))
            }
        }
    }

    /// `Σ a`.
    pub fn sum(self, a: &[f32]) -> f32 {
        self.dot(a, &vec![1.0; a.len()])
    }

    /// A function of a library, from its exact value.
    fn library(self, exact: f64) -> f32 {
        let near = exact as f32;
        let over = f64::from(near) > exact;
        self.keep(match self.library {
            Library::Up if f64::from(near) < exact => near.next_up(),
            Library::Down if over && near > 0.0 => near.next_down(),
            _ => near,
        })
    }

    pub fn exp(self, x: f32) -> f32 {
        self.library(f64::from(x).exp())
    }

    pub fn ln_1p(self, x: f32) -> f32 {
        self.library(f64::from(x).ln_1p())
    }

    /// `1 / √x`, in one instruction or in two.
    pub fn rsqrt(self, x: f32) -> f32 {
        match self.library {
            Library::Nearest => 1.0 / x.sqrt(),
            _ => self.library(1.0 / f64::from(x).sqrt()),
        }
    }

    pub fn sigmoid(self, x: f32) -> f32 {
        let e = self.exp(-x);
        // The exponential of the other sign, where a kernel avoids overflow.
        if self.fused && x < 0.0 {
            let e = self.exp(x);
            return self.keep(e / (1.0 + e));
        }
        self.keep(1.0 / (1.0 + e))
    }

    pub fn silu(self, x: f32) -> f32 {
        if self.fused { self.keep(x * self.sigmoid(x)) } else { self.keep(x / (1.0 + self.exp(-x))) }
    }
}
