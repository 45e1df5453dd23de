// The time loop of the recurrent cell and its gradient, for processors: time_loop.py says what they
// compute, and native_loop.py compiles this file and calls it.
//
// The rows of a batch do not depend on each other in a time loop. So each thread takes a block of
// them through all steps and nodes without waiting for the others, and their states stay in its own
// cache. The weights are packed once, into panels in the order in which a product reads them, and
// then serve all steps.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

#include "nas/supernets/native.h"

namespace {

using Real = REAL;  // float or double, from the command line

enum Activation {
  kTanh,
  kRelu,
  kIdentity,
  kSigmoid
};  // the order of nas.spaces.recurrent.ACTIVATIONS

constexpr int kLanes = kBytes / sizeof(Real);
constexpr int64_t kPanel = kVectors * kLanes;

// ---- Products ----

// How many numbers a packed matrix of `depth` rows has.
int64_t PackedSize(int64_t depth, int64_t columns) { return depth * RoundUp(columns, kLanes); }

// A matrix as panels of kPanel columns, the last one narrower: panel[k][column], with zeros to its
// right. value(k, column) reads the matrix.
template <class Value>
void Pack(int64_t depth, int64_t columns, Real* packed, const Value& value) {
  const int64_t padded = RoundUp(columns, kLanes);
  for (int64_t first = 0; first < padded; first += kPanel) {
    const int64_t width = std::min(kPanel, padded - first),
                  filled = std::min(width, columns - first);
    for (int64_t k = 0; k < depth; ++k, packed += width) {
      for (int64_t c = 0; c < filled; ++c) packed[c] = value(k, first + c);
      std::fill(packed + filled, packed + width, 0);
    }
  }
}

// kRows rows of `left` times one panel of `vectors` vectors, into `result`. Meanwhile `next` is
// fetched into the cache, a line for every k.
template <int vectors>
void MultiplyTile(int64_t depth, const Real* left, int64_t left_stride, const Real* panel,
                  Real* result, int64_t result_stride, const Real* next) {
  typedef Real Vector __attribute__((vector_size(kBytes), aligned(sizeof(Real)), may_alias));
  Vector sums[kRows][vectors] = {};
  for (int64_t k = 0; k < depth; ++k) {
    __builtin_prefetch(next + k * (64 / sizeof(Real)), 0, 2);
    const Vector* right = reinterpret_cast<const Vector*>(panel + k * vectors * kLanes);
#pragma GCC unroll 8
    for (int row = 0; row < kRows; ++row) {
      const Real value = left[row * left_stride + k];
#pragma GCC unroll 3
      for (int v = 0; v < vectors; ++v) sums[row][v] += value * right[v];
    }
  }
#pragma GCC unroll 8
  for (int row = 0; row < kRows; ++row)
#pragma GCC unroll 3
    for (int v = 0; v < vectors; ++v)
      *reinterpret_cast<Vector*>(result + row * result_stride + v * kLanes) = sums[row][v];
}

// result [rows, columns rounded up to kLanes] = left [rows, depth] times a packed matrix; rows a
// multiple of kRows. `following` is the packed matrix of the next product.
void Multiply(int64_t rows, int64_t depth, int64_t columns, const Real* left, const Real* packed,
              Real* result, const Real* following) {
  const int64_t padded = RoundUp(columns, kLanes);
  for (int64_t first = 0; first < padded; first += kPanel) {
    const int64_t width = std::min(kPanel, padded - first);
    const Real* panel = packed + first * depth;
    const Real* next = first + width < padded ? panel + width * depth : following;
    const auto tile = width == kPanel       ? MultiplyTile<3>
                      : width == 2 * kLanes ? MultiplyTile<2>
                                            : MultiplyTile<1>;
    for (int64_t row = 0; row < rows; row += kRows)
      tile(depth, left + row * depth, depth, panel, result + row * padded + first, padded,
           next + width * depth * row / rows);
  }
}

// To the nearest bfloat16, which is the upper half of a float's bits; NaN stays.
inline float Round(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  bits = (bits + 0x7fff + (bits >> 16 & 1)) & 0xffff0000;  // a tie goes to the even one
  float rounded;
  std::memcpy(&rounded, &bits, sizeof bits);
  return x == x ? rounded : x;
}

// ---- Activations ----

// e^x = power (1 + fraction). With x = n log 2 + r, |r| <= log(2) / 2, power is 2^n and fraction
// e^r - 1, which Taylor's series of order 7 gives to 6e-9. A comparison with NaN is false, which
// lets NaN pass through.
inline void Exponential(float x, float* power, float* fraction) {
  x = x > 87 ? 87 : x;
  x = x < -87 ? -87 : x;
  const float n = std::nearbyint(x * 1.442695041f);
  const float r =
      (x - n * 0.693145752f) - n * 1.42860677e-6f;  // log 2 in two parts, the first of few digits
  *fraction =
      r * (1 + r * (1 / 2.f +
                    r * (1 / 6.f +
                         r * (1 / 24.f + r * (1 / 120.f + r * (1 / 720.f + r * (1 / 5040.f)))))));
  const int32_t bits = (static_cast<int32_t>(n) + 127) << 23;
  std::memcpy(power, &bits, sizeof bits);
}

inline float Sigmoid(float x) {
  float power, fraction;
  Exponential(-x, &power, &fraction);
  return 1 / (1 + (power + power * fraction));
}

inline float Tanh(float x) {
  float power, fraction;
  Exponential(2 * x, &power, &fraction);
  const float less_one = (power - 1) + power * fraction;
  return less_one / (less_one + 2);
}

inline double Sigmoid(double x) { return 1 / (1 + std::exp(-x)); }
inline double Tanh(double x) { return std::tanh(x); }

void Activate(int activation, int64_t size, Real* x) {
  switch (activation) {
    case kTanh:
      for (int64_t k = 0; k < size; ++k) x[k] = Tanh(x[k]);
      break;
    case kRelu:
      for (int64_t k = 0; k < size; ++k) x[k] = x[k] < 0 ? 0 : x[k];
      break;
    case kIdentity:
      break;
    case kSigmoid:
      for (int64_t k = 0; k < size; ++k) x[k] = Sigmoid(x[k]);
  }
}

// Multiplies x by the derivative of an activation, given its values.
void MultiplyBySlope(int activation, int64_t size, const Real* __restrict value,
                     Real* __restrict x) {
  switch (activation) {
    case kTanh:
      for (int64_t k = 0; k < size; ++k) x[k] *= 1 - value[k] * value[k];
      break;
    case kRelu:
      for (int64_t k = 0; k < size; ++k) x[k] = value[k] > 0 ? x[k] : 0;
      break;
    case kIdentity:
      break;
    case kSigmoid:
      for (int64_t k = 0; k < size; ++k) x[k] *= value[k] * (1 - value[k]);
  }
}

// ---- The loops ----

// What the gradient needs of a node, [T, B, H] each.
struct Kept {
  Real *parent, *gate, *candidate;
};

// What both directions read.
struct Loop {
  int64_t steps, rows, width, nodes, block;  // rows of a block
  bool rounds;                               // the operands of products
  const int32_t *slot, *activation;          // [N] slot 0 is h_{t-1}, slot i + 1 node i
  const Real *output, *mask;                 // [N], [B, H]
  Real max_norm;
  std::vector<const Real*> matrices;  // [H, 2H] of every node
  Real* packed;                       // all of them
  std::vector<Kept> kept;             // of every node, or none
  Real* raw;                          // [T, B, H] outputs before they are clipped; if kept

  int64_t At(int64_t step, int64_t row) const { return (step * rows + row) * width; }
  Real Operand(Real x) const { return rounds ? Round(x) : x; }
};

void ForwardBlock(const Loop& loop, int64_t first, const Real* projected, const Real* hidden,
                  Real* states) {
  const int64_t width = loop.width, stride = RoundUp(2 * width, kLanes),
                size = PackedSize(width, 2 * width);
  const int64_t rows = std::min(loop.block, loop.rows - first), padded = RoundUp(rows, kRows);
  std::vector<Real> slots((loop.nodes + 1) * padded * width), operand(padded * width),
      pre(padded * stride);
  std::copy_n(hidden + first * width, rows * width, slots.data());

  for (int64_t step = 0; step < loop.steps; ++step) {
    for (int64_t i = 0; i < loop.nodes; ++i) {
      const Real* parents = &slots[loop.slot[i] * padded * width];
      const bool as_it_is = i > 0 && !loop.rounds;
      if (!as_it_is)
        for (int64_t k = 0; k < rows * width; ++k)
          operand[k] = loop.Operand(i ? parents[k] : parents[k] * loop.mask[first * width + k]);
      Multiply(padded, width, 2 * width, as_it_is ? parents : operand.data(),
               loop.packed + i * size, pre.data(), loop.packed + (i + 1) % loop.nodes * size);
      for (int64_t row = 0; row < rows; ++row) {
        const int64_t at = loop.At(step, first + row);
        const Real* parent = parents + row * width;
        Real *gate = &pre[row * stride], *candidate = gate + width,
             *node = &slots[((i + 1) * padded + row) * width];
        if (i == 0)
          for (int64_t k = 0; k < 2 * width; ++k) gate[k] += projected[2 * at + k];
        Activate(kSigmoid, width, gate);
        Activate(loop.activation[i], width, candidate);
        for (int64_t k = 0; k < width; ++k)
          node[k] = parent[k] + gate[k] * (candidate[k] - parent[k]);
        if (loop.kept.empty()) continue;
        std::copy_n(parent, width, loop.kept[i].parent + at);
        std::copy_n(gate, width, loop.kept[i].gate + at);
        std::copy_n(candidate, width, loop.kept[i].candidate + at);
      }
    }
    for (int64_t row = 0; row < rows; ++row) {
      const int64_t at = loop.At(step, first + row);
      Real* state = &slots[row * width];
      std::fill_n(state, width, 0);
      for (int64_t i = 0; i < loop.nodes; ++i) {
        const Real weight = loop.output[i], *node = &slots[((i + 1) * padded + row) * width];
        if (weight != 0)
          for (int64_t k = 0; k < width; ++k) state[k] += weight * node[k];
      }
      if (!loop.kept.empty()) std::copy_n(state, width, loop.raw + at);
      if (loop.max_norm > 0) {
        Real squares = 1e-12;
        for (int64_t k = 0; k < width; ++k) squares += state[k] * state[k];
        const Real scale = std::min<Real>(loop.max_norm / std::sqrt(squares), 1);
        for (int64_t k = 0; k < width; ++k) state[k] *= scale;
      }
      std::copy_n(state, width, states + at);
    }
  }
}

void BackwardBlock(const Loop& loop, int64_t first, const Real* of_states, Real* of_hidden,
                   const std::vector<Real*>& of_pre) {
  const int64_t width = loop.width, stride = RoundUp(width, kLanes),
                size = PackedSize(2 * width, width);
  const int64_t rows = std::min(loop.block, loop.rows - first), padded = RoundUp(rows, kRows);
  // Gradients of the slots; that of slot 0 goes on to the step before.
  std::vector<Real> of_slots((loop.nodes + 1) * rows * width), gradient(padded * 2 * width),
      through(padded * stride);

  for (int64_t step = loop.steps; step-- > 0;) {
    for (int64_t row = 0; row < rows; ++row) {
      const int64_t at = loop.At(step, first + row);
      const Real* raw = loop.raw + at;
      Real* of_state = &of_slots[row * width];
      for (int64_t k = 0; k < width; ++k) of_state[k] += of_states[at + k];
      if (loop.max_norm > 0) {
        Real squares = 1e-12, along = 0;
        for (int64_t k = 0; k < width; ++k) squares += raw[k] * raw[k];
        const Real scale = loop.max_norm / std::sqrt(squares);
        if (!(scale > 1)) {
          for (int64_t k = 0; k < width; ++k) along += of_state[k] * raw[k];
          for (int64_t k = 0; k < width; ++k)
            of_state[k] = scale * (of_state[k] - raw[k] * (along / squares));
        }
      }
      for (int64_t i = 0; i < loop.nodes; ++i) {
        Real* of_node = &of_slots[((i + 1) * rows + row) * width];
        for (int64_t k = 0; k < width; ++k) of_node[k] = loop.output[i] * of_state[k];
      }
      std::fill_n(of_state, width, 0);
    }
    for (int64_t i = loop.nodes; i-- > 0;) {
      Real* of_nodes = &of_slots[(i + 1) * rows * width];
      for (int64_t row = 0; row < rows; ++row) {
        const int64_t at = loop.At(step, first + row);
        const Real *parent = loop.kept[i].parent + at, *gate = loop.kept[i].gate + at;
        const Real* candidate = loop.kept[i].candidate + at;
        Real *of_node = of_nodes + row * width, *of_gate = &gradient[row * 2 * width],
             *of_candidate = of_gate + width;
#pragma GCC ivdep
        for (int64_t k = 0; k < width; ++k) {
          const Real closed = 1 - gate[k], opened = of_node[k] * gate[k];
          of_gate[k] = opened * closed * (candidate[k] - parent[k]);
          of_candidate[k] = opened;
          of_node[k] *= closed;
        }
        MultiplyBySlope(loop.activation[i], width, candidate, of_candidate);
        std::copy_n(of_gate, 2 * width, of_pre[i] + 2 * at);
        if (loop.rounds)
          for (int64_t k = 0; k < 2 * width; ++k) of_gate[k] = Round(of_gate[k]);
      }
      Multiply(padded, 2 * width, width, gradient.data(), loop.packed + i * size, through.data(),
               loop.packed + (i + loop.nodes - 1) % loop.nodes * size);
      for (int64_t row = 0; row < rows; ++row) {
        const Real *passed = of_nodes + row * width, *product = &through[row * stride];
        const Real* mask = loop.mask + (first + row) * width;
        Real* of_parent = &of_slots[(loop.slot[i] * rows + row) * width];
        if (i)
          for (int64_t k = 0; k < width; ++k) of_parent[k] += passed[k] + product[k];
        else
          for (int64_t k = 0; k < width; ++k) of_parent[k] += passed[k] + product[k] * mask[k];
      }
    }
  }
  std::copy_n(of_slots.data(), rows * width, of_hidden + first * width);
}

// ---- What XLA calls ----

// The operands that both directions begin with: rounds [], slot [N], activation [N], output [N],
// mask [B, H], max_norm [], N matrices.
Loop ReadLoop(Call& call) {
  Loop loop;
  loop.rounds = *call.Operand<int32_t>();
  loop.slot = call.Operand<int32_t>();
  loop.nodes = call.shape[0];
  loop.activation = call.Operand<int32_t>();
  loop.output = call.Operand<Real>();
  loop.mask = call.Operand<Real>();
  loop.rows = call.shape[0];
  loop.width = call.shape[1];
  loop.max_norm = *call.Operand<Real>();
  for (int64_t i = 0; i < loop.nodes; ++i) loop.matrices.push_back(call.Operand<Real>());
  loop.block = RoundUp((loop.rows + call.Threads() - 1) / call.Threads(), kRows);
  return loop;
}

// Packs all matrices, of which `element` reads one, and then works on all blocks of rows, given the
// first row of each.
template <class Element, class Work>
void PackAndWork(const Call& call, const Loop& loop, int64_t depth, int64_t columns,
                 const Element& element, const Work& work) {
  call.Parallel(loop.nodes, [&](int64_t i) {
    Pack(depth, columns, loop.packed + i * PackedSize(depth, columns),
         [&](int64_t k, int64_t column) {
           return loop.Operand(element(loop.matrices[i], k, column));
         });
  });
  call.Parallel((loop.rows + loop.block - 1) / loop.block,
                [&](int64_t block) { work(block * loop.block); });
}

// Further operands: hidden [B, H], projected [T, B, 2H]. Results: packed matrices, states [T, B,
// H]; and where they are to be kept, raw and of each node parent, gate and candidate.
void Forward(Call& call) {
  Loop loop = ReadLoop(call);
  const Real *hidden = call.Operand<Real>(), *projected = call.Operand<Real>();
  loop.steps = call.shape[0];
  loop.packed = call.Result<Real>();
  Real* states = call.Result<Real>();
  if (call.HasResult()) {
    loop.raw = call.Result<Real>();
    while (call.HasResult()) {
      loop.kept.push_back({call.Result<Real>(), call.Result<Real>(), call.Result<Real>()});
    }
  }
  const int64_t width = loop.width;
  PackAndWork(
      call, loop, width, 2 * width,
      [=](const Real* matrix, int64_t k, int64_t column) { return matrix[k * 2 * width + column]; },
      [&](int64_t first) { ForwardBlock(loop, first, projected, hidden, states); });
}

// Further operands: gradient of the states [T, B, H], then raw and what was kept of each node.
// Results: packed matrices, gradient of hidden [B, H], N gradients of pre-activations [T, B, 2H].
void Backward(Call& call) {
  std::vector<Real*> of_pre;
  Loop loop = ReadLoop(call);
  const Real* of_states = call.Operand<Real>();
  loop.steps = call.shape[0];
  loop.raw = call.Operand<Real>();
  for (int64_t i = 0; i < loop.nodes; ++i)
    loop.kept.push_back({call.Operand<Real>(), call.Operand<Real>(), call.Operand<Real>()});
  loop.packed = call.Result<Real>();
  Real* of_hidden = call.Result<Real>();
  while (call.HasResult()) of_pre.push_back(call.Result<Real>());
  const int64_t width = loop.width;
  PackAndWork(
      call, loop, 2 * width, width,
      [=](const Real* matrix, int64_t k, int64_t column) { return matrix[column * 2 * width + k]; },
      [&](int64_t first) { BackwardBlock(loop, first, of_states, of_hidden, of_pre); });
}

}  // namespace

// Whether the processor has instructions for products of bfloat16.
extern "C" int multiplies_bfloat16() {
#if defined(__AVX512BF16__) || defined(__AMX_BF16__)
  return 1;
#else
  return 0;
#endif
}

extern "C" XLA_FFI_Error* forward(XLA_FFI_CallFrame* frame) { return Handle(frame, Forward); }
extern "C" XLA_FFI_Error* backward(XLA_FFI_CallFrame* frame) { return Handle(frame, Backward); }
