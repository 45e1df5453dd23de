// The image networks and their gradients, for processors: macro.py and micro.py say what they
// compute, and native_networks.py compiles this file and calls it.
//
// XLA's gradients of small convolutions, of depthwise ones and of pooling take many times what the
// arithmetic would, and so do the passes over memory between them. Here a thread takes whole images
// through a layer, whose padded input stays in its own cache. No pass over memory normalises a
// tensor: it is stored as it was computed, with a factor and a shift for each channel, and every
// operation that reads it applies them. The backward pass goes through the operations of the
// forward pass in reverse.
//
// Channels are padded with zeros to whole vectors.

#include <cmath>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <limits>
#include <mutex>
#include <vector>

#include "nas/supernets/native.h"

namespace {

using Real = REAL;  // float or double, from the command line

typedef Real Vector __attribute__((vector_size(kBytes), may_alias));
constexpr int kLanes = kBytes / sizeof(Real);

int64_t Padded(int64_t channels) { return RoundUp(channels, kLanes); }

Vector Load(const Real* x) { return *reinterpret_cast<const Vector*>(x); }
void Store(Real* x, Vector value) { *reinterpret_cast<Vector*>(x) = value; }
Vector Positive(Vector x) { return x > Real(0) ? x : Vector{}; }

// ---- Memory ----

// Memory of a call, which later calls use again: to map new pages would take longer than the work
// on them.
class Arena {
 public:
  Arena() = default;
  Arena(const Arena&) = delete;
  ~Arena() {
    for (Block& block : blocks_) std::free(block.start);
  }
  // `count` numbers at an address that is a multiple of a vector's length; not cleared.
  Real* Take(int64_t count) {
    const int64_t bytes = RoundUp(count * sizeof(Real), 64);
    while (current_ < blocks_.size() && used_ + bytes > blocks_[current_].bytes) {
      ++current_;
      used_ = 0;
    }
    if (current_ == blocks_.size()) {
      const int64_t size = std::max<int64_t>(bytes, 16 << 20);
      blocks_.push_back({static_cast<char*>(std::aligned_alloc(64, size)), size});
      used_ = 0;
    }
    Real* taken = reinterpret_cast<Real*>(blocks_[current_].start + used_);
    used_ += bytes;
    return taken;
  }
  Real* Zeros(int64_t count) {
    Real* taken = Take(count);
    std::fill_n(taken, count, Real(0));
    return taken;
  }
  void Clear() { current_ = used_ = 0; }

 private:
  struct Block {
    char* start;
    int64_t bytes;
  };
  std::vector<Block> blocks_;
  size_t current_ = 0;
  int64_t used_ = 0;
};

// An arena that no other call uses at the same time.
class BorrowedArena {
 public:
  BorrowedArena() {
    const std::lock_guard<std::mutex> lock(Mutex());
    if (!Idle().empty()) {
      arena_ = std::move(Idle().back());
      Idle().pop_back();
    } else {
      arena_ = std::make_unique<Arena>();
    }
  }
  ~BorrowedArena() {
    arena_->Clear();
    const std::lock_guard<std::mutex> lock(Mutex());
    Idle().push_back(std::move(arena_));
  }
  Arena& operator*() { return *arena_; }

 private:
  static std::mutex& Mutex() {
    static std::mutex mutex;
    return mutex;
  }
  static std::vector<std::unique_ptr<Arena>>& Idle() {
    static std::vector<std::unique_ptr<Arena>> idle;
    return idle;
  }
  std::unique_ptr<Arena> arena_;
};

// ---- Kernels, each on one image ----

// Sums over a window of size x size taps and `depth` channels, for `rows` pixels of a line and one
// panel of output channels: panel[tap][channel][vectors].
template <int rows, int vectors>
void MultiplyTile(int64_t size, int64_t depth, int64_t pixel, int64_t line, const Real* x,
                  const Vector* panel, Real* out, int64_t out_pixel) {
  Vector sums[rows][vectors] = {};
  for (int64_t dy = 0; dy < size; ++dy) {
    for (int64_t dx = 0; dx < size; ++dx) {
      const Real* left = x + dy * line + dx * pixel;
      for (int64_t i = 0; i < depth; ++i, panel += vectors) {
#pragma GCC unroll 8
        for (int row = 0; row < rows; ++row) {
          const Real value = left[row * pixel + i];
#pragma GCC unroll 3
          for (int v = 0; v < vectors; ++v) sums[row][v] += value * panel[v];
        }
      }
    }
  }
#pragma GCC unroll 8
  for (int row = 0; row < rows; ++row)
#pragma GCC unroll 3
    for (int v = 0; v < vectors; ++v) Store(out + row * out_pixel + v * kLanes, sums[row][v]);
}

template <int vectors, int rows = kRows>
void MultiplyRemainder(int64_t left_over, int64_t size, int64_t depth, int64_t pixel, int64_t line,
                       const Real* x, const Vector* panel, Real* out, int64_t out_pixel) {
  if (left_over == rows)
    MultiplyTile<rows, vectors>(size, depth, pixel, line, x, panel, out, out_pixel);
  else if constexpr (rows > 1)
    MultiplyRemainder<vectors, rows - 1>(left_over, size, depth, pixel, line, x, panel, out,
                                         out_pixel);
}

// What a product of windows with weights works on.
struct Product {
  int64_t height, width;  // of the output
  int64_t size;           // of a window: 1, 3 or 5
  int64_t depth;          // channels of the input that are read
  int64_t stride;         // floats of the input a pixel; its lines are padded by size - 1 pixels
  int64_t columns;        // channels of the output, padded

  int64_t Line() const { return (width + size - 1) * stride; }
  int64_t InputSize() const { return (height + size - 1) * Line(); }
  int64_t Taps() const { return size * size; }
  int64_t WeightSize() const { return Taps() * depth * columns; }
  int64_t Vectors() const { return columns / kLanes; }
  int64_t Panels() const { return (Vectors() + kVectors - 1) / kVectors; }
  int64_t PanelStart(int64_t panel) const { return Vectors() * panel / Panels(); }
};

// Weights [taps][depth][columns] in the order in which Multiply reads them, panel by panel.
void Pack(const Product& of, const Real* weights, Real* packed) {
  for (int64_t panel = 0; panel < of.Panels(); ++panel) {
    const int64_t first = of.PanelStart(panel) * kLanes,
                  width = of.PanelStart(panel + 1) * kLanes - first;
    for (int64_t row = 0; row < of.Taps() * of.depth; ++row, packed += width)
      std::copy_n(weights + row * of.columns + first, width, packed);
  }
}

template <int vectors>
void MultiplyPanel(const Product& of, const Real* x, const Real* packed, Real* out) {
  const Vector* panel = reinterpret_cast<const Vector*>(packed);
  for (int64_t y = 0; y < of.height; ++y) {
    for (int64_t first = 0; first < of.width; first += kRows) {
      const Real* left = x + y * of.Line() + first * of.stride;
      Real* to = out + (y * of.width + first) * of.columns;
      const int64_t rows = std::min<int64_t>(kRows, of.width - first);
      MultiplyRemainder<vectors>(rows, of.size, of.depth, of.stride, of.Line(), left, panel, to,
                                 of.columns);
    }
  }
}

// out [height][width][columns] from a padded input.
void Multiply(const Product& of, const Real* x, const Real* packed, Real* out) {
  for (int64_t panel = 0; panel < of.Panels(); ++panel) {
    const int64_t first = of.PanelStart(panel), vectors = of.PanelStart(panel + 1) - first;
    const auto multiply = vectors == 3   ? MultiplyPanel<3>
                          : vectors == 2 ? MultiplyPanel<2>
                                         : MultiplyPanel<1>;
    multiply(of, x, packed + first * kLanes * of.Taps() * of.depth, out + first * kLanes);
  }
}

// Adds to `rows` rows of one tap's gradient what an image contributes.
template <int rows, int vectors>
void CorrelateTile(const Product& of, const Real* x, const Real* z, int64_t z_line, Real* out) {
  Vector sums[rows][vectors] = {};
  for (int64_t y = 0; y < of.height; ++y) {
    const Real *left = x + y * of.Line(), *right = z + y * z_line;
    for (int64_t column = 0; column < of.width;
         ++column, left += of.stride, right += of.columns) {
      Vector loaded[vectors];
#pragma GCC unroll 3
      for (int v = 0; v < vectors; ++v) loaded[v] = Load(right + v * kLanes);
#pragma GCC unroll 8
      for (int row = 0; row < rows; ++row) {
        const Real value = left[row];
#pragma GCC unroll 3
        for (int v = 0; v < vectors; ++v) sums[row][v] += value * loaded[v];
      }
    }
  }
#pragma GCC unroll 8
  for (int row = 0; row < rows; ++row) {
#pragma GCC unroll 3
    for (int v = 0; v < vectors; ++v) {
      Real* to = out + row * of.columns + v * kLanes;
      Store(to, Load(to) + sums[row][v]);
    }
  }
}

template <int vectors>
void CorrelatePanel(const Product& of, const Real* x, const Real* z, int64_t z_line, Real* out) {
  for (int64_t tap = 0; tap < of.Taps(); ++tap) {
    const Real* left = x + tap / of.size * of.Line() + tap % of.size * of.stride;
    Real* to = out + tap * of.depth * of.columns;
    int64_t row = 0;
    for (; row + kRows <= of.depth; row += kRows)
      CorrelateTile<kRows, vectors>(of, left + row, z, z_line, to + row * of.columns);
    for (; row + 4 <= of.depth; row += 4)
      CorrelateTile<4, vectors>(of, left + row, z, z_line, to + row * of.columns);
    for (; row < of.depth; ++row)
      CorrelateTile<1, vectors>(of, left + row, z, z_line, to + row * of.columns);
  }
}

// Adds to the gradient of the weights, [taps][depth][columns], what an image contributes: x is its
// padded input, z the gradient of its output, whose lines are z_line floats apart.
void Correlate(const Product& of, const Real* x, const Real* z, int64_t z_line, Real* out) {
  for (int64_t panel = 0; panel < of.Panels(); ++panel) {
    const int64_t first = of.PanelStart(panel), vectors = of.PanelStart(panel + 1) - first;
    const auto correlate = vectors == 3   ? CorrelatePanel<3>
                           : vectors == 2 ? CorrelatePanel<2>
                                          : CorrelatePanel<1>;
    correlate(of, x, z + first * kLanes, z_line, out + first * kLanes);
  }
}

// Each channel's own window: out [height][width][channels] from an input padded by size - 1 pixels
// and weights [taps][channels].
template <int size>
void Depthwise(int64_t height, int64_t width, int64_t channels, const Real* x,
               const Real* weights, Real* out) {
  constexpr int kPixels = 4;
  const int64_t line = (width + size - 1) * channels;
  for (int64_t y = 0; y < height; ++y) {
    for (int64_t c = 0; c < channels; c += kLanes) {
      const Real* left = x + y * line + c;
      Real* to = out + y * width * channels + c;
      int64_t column = 0;
      for (; column + kPixels <= width; column += kPixels) {
        Vector sums[kPixels] = {};
#pragma GCC unroll 5
        for (int tap = 0; tap < size * size; ++tap) {
          const Vector weight = Load(weights + tap * channels + c);
          const Real* from = left + tap / size * line + (column + tap % size) * channels;
#pragma GCC unroll 4
          for (int p = 0; p < kPixels; ++p) sums[p] += weight * Load(from + p * channels);
        }
#pragma GCC unroll 4
        for (int p = 0; p < kPixels; ++p) Store(to + (column + p) * channels, sums[p]);
      }
      for (; column < width; ++column) {
        Vector sum = {};
        for (int tap = 0; tap < size * size; ++tap)
          sum += Load(weights + tap * channels + c) *
                 Load(left + tap / size * line + (column + tap % size) * channels);
        Store(to + column * channels, sum);
      }
    }
  }
}

// Adds to the gradient [taps][channels] what an image contributes; z as in Correlate.
template <int size>
void DepthwiseCorrelate(int64_t height, int64_t width, int64_t channels, const Real* x,
                        const Real* z, int64_t z_line, Real* out) {
  const int64_t line = (width + size - 1) * channels;
  for (int64_t c = 0; c < channels; c += kLanes) {
    for (int dy = 0; dy < size; ++dy) {
      Vector sums[size] = {};
      for (int64_t y = 0; y < height; ++y) {
        const Real *left = x + (y + dy) * line + c, *right = z + y * z_line + c;
        for (int64_t column = 0; column < width; ++column) {
          const Vector value = Load(right + column * channels);
#pragma GCC unroll 5
          for (int dx = 0; dx < size; ++dx)
            sums[dx] += value * Load(left + (column + dx) * channels);
        }
      }
      for (int dx = 0; dx < size; ++dx) {
        Real* to = out + (dy * size + dx) * channels + c;
        Store(to, Load(to) + sums[dx]);
      }
    }
  }
}

// ---- Tensors ----

// Normalisation of a tensor over the images of the batch and their pixels. An operation that reads
// the tensor applies it: factor x + shift.
struct Norm {
  const Real *scale, *offset;   // [channels], learnt
  Real *of_scale, *of_offset;   // their gradients; null: not wanted
  Real *mean, *inverse;         // [padded]; of x, and 1 / its standard deviation
  Real *factor, *shift;         // [padded]
};

struct Tensor {
  Real* data;      // [images][height][width][padded]
  Real* gradient;  // with respect to what reading operations see, the normalised tensor
  int64_t height, width, channels, padded;
  Norm* norm;  // null: read as it is
  bool has_gradient;

  int64_t Pixels() const { return height * width; }
  int64_t Size() const { return Pixels() * padded; }
};

// What an operation reads: a tensor, normalised if it has a norm, then perhaps rectified.
struct Source {
  Tensor* tensor;
  bool rectified;

  // `pixels` of them, from place `at` of the tensor's data.
  void Read(int64_t at, int64_t pixels, Real* out, int64_t out_pixel) const {
    const Norm* norm = tensor->norm;
    const Real* from = tensor->data + at;
    for (int64_t p = 0; p < pixels; ++p, from += tensor->padded, out += out_pixel) {
      for (int64_t c = 0; c < tensor->padded; c += kLanes) {
        Vector x = Load(from + c);
        if (norm) x = x * Load(norm->factor + c) + Load(norm->shift + c);
        if (rectified) x = Positive(x);
        Store(out + c, x);
      }
    }
  }
  // The same backwards: to the gradient of the tensor from that of what was read.
  void Return(int64_t at, int64_t pixels, const Real* gradient, int64_t gradient_pixel,
              bool add) const {
    const Norm* norm = tensor->norm;
    const Real* from = tensor->data + at;
    Real* to = tensor->gradient + at;
    for (int64_t p = 0; p < pixels;
         ++p, from += tensor->padded, to += tensor->padded, gradient += gradient_pixel) {
      for (int64_t c = 0; c < tensor->padded; c += kLanes) {
        Vector g = Load(gradient + c);
        if (rectified) {
          Vector x = Load(from + c);
          if (norm) x = x * Load(norm->factor + c) + Load(norm->shift + c);
          g = x > Real(0) ? g : Vector{};
        }
        Store(to + c, add ? Load(to + c) + g : g);
      }
    }
  }
};

// Weights of a network, and where their gradient goes (null: not wanted).
struct Weights {
  const Real* value;
  Real* gradient;

  Weights operator+(int64_t at) const { return {value + at, gradient ? gradient + at : nullptr}; }
};

// A part of a product's weights: [taps][rows][columns] at (row, column) of the whole.
struct Part {
  Weights weights;
  int64_t row, rows, column, columns;
};

struct NormWeights {
  Weights scale, offset;

  NormWeights operator+(int64_t at) const { return {scale + at, offset + at}; }
};

// ---- Networks ----

class Network {
 public:
  Network(Call& call, Arena& arena, int64_t images, bool backward)
      : call_(call),
        arena_(arena),
        images_(images),
        threads_(std::min(images, call.Threads())),
        backward_(backward) {}

  // Images [height][width][channels] as they come.
  struct Input {
    const Real* data;
    int64_t height, width, channels;
  };

  // A 3 x 3 convolution of the images.
  Tensor* Stem(const Input& input, int64_t channels, Weights weights, NormWeights norm) {
    const Product product = {input.height, input.width,  3,
                             input.channels, input.channels, Padded(channels)};
    const auto fill = [=](int64_t, int64_t image, Real* x) {
      const int64_t line = input.width * input.channels;
      for (int64_t y = 0; y < input.height; ++y)
        std::copy_n(input.data + (image * input.height + y) * line, line,
                    x + (y + 1) * product.Line() + product.stride);
    };
    return Apply(product, channels, fill, nullptr, {{weights, 0, input.channels, 0, channels}},
                 &norm);
  }

  // A convolution of size 1, 3 or 5.
  Tensor* Convolution(Source source, int64_t size, int64_t channels, Weights weights,
                      const NormWeights& norm) {
    const Tensor& from = *source.tensor;
    const Product product = {from.height,   from.width,  size,
                             from.channels, from.padded, Padded(channels)};
    const auto fill = [=](int64_t, int64_t image, Real* x) { Pad(source, size, image, x); };
    const auto drain = [=](int64_t, int64_t image, const Real* gradient, bool add) {
      source.Return(image * source.tensor->Size(), source.tensor->Pixels(), gradient,
                    source.tensor->padded, add);
    };
    return Apply(product, channels, fill, drain, {{weights, 0, from.channels, 0, channels}}, &norm,
                 {source.tensor});
  }

  // A depthwise convolution of size 3 or 5, and a pointwise one.
  Tensor* Separable(Source source, int64_t size, Weights depth, Weights point,
                    const NormWeights& norm) {
    return size == 3 ? SeparableOf<3>(source, depth, point, norm)
                     : SeparableOf<5>(source, depth, point, norm);
  }

  // Pointwise convolutions of tensors of one size, added up: the weights of tensor i are at
  // weights[i].
  Tensor* Join(const std::vector<Source>& sources, int64_t channels,
               const std::vector<Weights>& weights, const NormWeights& norm) {
    const Tensor& first = *sources[0].tensor;
    const int64_t stride = sources.size() * first.padded;
    const Product product = {1, first.Pixels(), 1, stride, stride, Padded(channels)};
    std::vector<Part> parts;
    std::vector<Tensor*> tensors;
    for (size_t i = 0; i < sources.size(); ++i) {
      parts.push_back({weights[i], static_cast<int64_t>(i) * first.padded, first.channels, 0,
                       channels});
      tensors.push_back(sources[i].tensor);
    }
    const auto fill = [=](int64_t, int64_t image, Real* x) {
      for (size_t i = 0; i < sources.size(); ++i) {
        const Tensor& from = *sources[i].tensor;
        sources[i].Read(image * from.Size(), from.Pixels(), x + i * from.padded, stride);
      }
    };
    const auto drain = [=](int64_t, int64_t image, const Real* gradient, bool) {
      for (size_t i = 0; i < sources.size(); ++i) {
        const Tensor& from = *sources[i].tensor;
        sources[i].Return(image * from.Size(), from.Pixels(), gradient + i * from.padded, stride,
                          from.has_gradient);
      }
    };
    Tensor* out = Apply(product, channels, fill, drain, parts, &norm, tensors);
    out->height = first.height;
    out->width = first.width;
    return out;
  }

  // Halves height and width: half of the channels from the pixels in even rows and columns, half
  // from those in odd ones.
  Tensor* Reduce(Source source, int64_t channels, Weights even, Weights odd,
                 const NormWeights& norm) {
    const Tensor& from = *source.tensor;
    const int64_t height = (from.height + 1) / 2, width = (from.width + 1) / 2,
                  padded = from.padded, half = channels / 2;
    const Product product = {height, width, 1, 2 * padded, 2 * padded, Padded(channels)};
    const auto each = [=](const auto& visit) {  // of the pixels that exist
      for (int64_t y = 0; y < 2 * height; ++y)
        for (int64_t x = y % 2; x < 2 * width; x += 2)
          if (y < source.tensor->height && x < source.tensor->width)
            visit((y * source.tensor->width + x) * padded,
                  (y / 2 * width + x / 2) * 2 * padded + y % 2 * padded);
    };
    const auto fill = [=](int64_t, int64_t image, Real* x) {
      each([&](int64_t at, int64_t to) {
        source.Read(image * source.tensor->Size() + at, 1, x + to, padded);
      });
    };
    const auto drain = [=](int64_t, int64_t image, const Real* gradient, bool add) {
      if (!add)
        std::fill_n(source.tensor->gradient + image * source.tensor->Size(), source.tensor->Size(),
                    Real(0));
      each([&](int64_t at, int64_t to) {
        source.Return(image * source.tensor->Size() + at, 1, gradient + to, padded, true);
      });
    };
    return Apply(product, channels, fill, drain,
                 {{even, 0, from.channels, 0, half}, {odd, padded, from.channels, half, half}},
                 &norm, {source.tensor});
  }

  // 3 x 3 averages of what is inside the image, or maxima.
  Tensor* Pool(Source source, bool maximum) {
    return maximum ? PoolOf<true>(source) : PoolOf<false>(source);
  }

  // The sum of tensors of one size, normalised if there are weights for it.
  Tensor* Sum(const std::vector<Source>& sources, const NormWeights* norm = nullptr) {
    Tensor* out = Like(*sources[0].tensor);
    if (norm) out->norm = MakeNorm(*norm, out->padded);
    ForBlocks(out, [&](int64_t thread, int64_t first, int64_t last) {
      Real* x = Scratch(thread, out->Size());
      for (int64_t image = first; image < last; ++image) {
        Real* to = out->data + image * out->Size();
        sources[0].Read(image * out->Size(), out->Pixels(), to, out->padded);
        for (size_t i = 1; i < sources.size(); ++i) {
          sources[i].Read(image * out->Size(), out->Pixels(), x, out->padded);
          for (int64_t k = 0; k < out->Size(); k += kLanes)
            Store(to + k, Load(to + k) + Load(x + k));
        }
        AddMoments(thread, *out, image);
      }
    });
    Record(out, [=, this] {
      const auto through = StartBackward(out);
      Parallel([&](int64_t thread, int64_t first, int64_t last) {
        Real* z = Scratch(thread, out->Size());
        for (int64_t image = first; image < last; ++image) {
          ReadGradient(*out, through, image, 1, z);
          for (size_t i = 0; i < sources.size(); ++i) {
            bool add = sources[i].tensor->has_gradient;
            for (size_t j = 0; j < i; ++j) add |= sources[j].tensor == sources[i].tensor;
            sources[i].Return(image * out->Size(), out->Pixels(), z, out->padded, add);
          }
        }
      });
      for (const Source& source : sources) source.tensor->has_gradient = true;
    });
    return out;
  }

  // Mean over pixels, dropout's mask [images][channels], weights [channels][classes], softmax: the
  // mean cross-entropy and the share of images whose label has the largest logit.
  void Head(Source source, Weights weights, int64_t classes, const Real* mask,
            const int32_t* labels, Real* loss, Real* accuracy) {
    Tensor* from = source.tensor;
    const int64_t channels = from->channels;
    Real* features = arena_.Take(images_ * from->padded);
    Real* of_features = arena_.Zeros(images_ * from->padded);
    Parallel([&](int64_t thread, int64_t first, int64_t last) {
      Real* x = Scratch(thread, from->Size());
      for (int64_t image = first; image < last; ++image) {
        source.Read(image * from->Size(), from->Pixels(), x, from->padded);
        for (int64_t c = 0; c < from->padded; c += kLanes) {
          Vector sum = {};
          for (int64_t p = 0; p < from->Pixels(); ++p) sum += Load(x + p * from->padded + c);
          Store(features + image * from->padded + c, sum / static_cast<Real>(from->Pixels()));
        }
        for (int64_t c = 0; c < channels; ++c)
          features[image * from->padded + c] *= mask[image * channels + c];
      }
    });
    std::vector<Real> logits(classes);
    double total = 0;
    int64_t right = 0;
    for (int64_t image = 0; image < images_; ++image) {
      const Real* feature = features + image * from->padded;
      std::fill(logits.begin(), logits.end(), Real(0));
      for (int64_t c = 0; c < channels; ++c)
        for (int64_t k = 0; k < classes; ++k)
          logits[k] += feature[c] * weights.value[c * classes + k];
      const int64_t label = labels[image];
      const int64_t best = std::max_element(logits.begin(), logits.end()) - logits.begin();
      const Real largest = logits[best];
      double sum = 0;
      for (Real& logit : logits) sum += std::exp(logit -= largest);
      total += std::log(sum) - logits[label];
      right += best == label && std::isfinite(sum);
      if (!backward_) continue;
      for (int64_t k = 0; k < classes; ++k) {
        const Real gradient =
            (std::exp(logits[k]) / static_cast<Real>(sum) - (k == label)) / images_;
        for (int64_t c = 0; c < channels; ++c) {
          weights.gradient[c * classes + k] += feature[c] * gradient;
          of_features[image * from->padded + c] += gradient * weights.value[c * classes + k];
        }
      }
    }
    *loss = static_cast<Real>(total / images_);
    *accuracy = static_cast<Real>(right) / images_;
    if (!backward_) return;
    Parallel([&](int64_t thread, int64_t first, int64_t last) {
      Real* g = Scratch(thread, from->Size());
      for (int64_t image = first; image < last; ++image) {
        Real* of_feature = of_features + image * from->padded;
        for (int64_t c = 0; c < channels; ++c)
          of_feature[c] *= mask[image * channels + c] / from->Pixels();
        for (int64_t p = 0; p < from->Pixels(); ++p)
          std::copy_n(of_feature, from->padded, g + p * from->padded);
        source.Return(image * from->Size(), from->Pixels(), g, from->padded, false);
      }
    });
    from->has_gradient = true;
    for (size_t i = tape_.size(); i-- > 0;) tape_[i]();
  }

 private:
  using Fill = std::function<void(int64_t thread, int64_t image, Real* x)>;
  using Drain =
      std::function<void(int64_t thread, int64_t image, const Real* gradient, bool add)>;

  // Backwards through the normalisation: the gradient with respect to the tensor x as it was
  // computed, of_read g + of_value x + constant, where g is that with respect to what was read.
  struct Through {
    const Real *of_read, *of_value, *constant;  // [padded]; null: there is no normalisation
  };

  // ---- work on blocks of images, one a thread ----

  template <class Work>
  void Parallel(const Work& work) {
    call_.Parallel(threads_, [&](int64_t thread) {
      work(thread, images_ * thread / threads_, images_ * (thread + 1) / threads_);
    });
  }

  // The same for work that computes a tensor and counts its moments.
  template <class Work>
  void ForBlocks(Tensor* out, const Work& work) {
    moments_ = out->norm ? reinterpret_cast<double*>(arena_.Zeros(threads_ * 4 * out->padded))
                         : nullptr;
    Parallel(work);
    if (out->norm) FinishNorm(*out);
  }

  // Memory of a thread until the next operation.
  Real* Scratch(int64_t thread, int64_t size) {
    std::vector<Real>& scratch = scratch_[thread];
    if (static_cast<int64_t>(scratch.size()) < size + 64) scratch.resize(size + 64);
    return reinterpret_cast<Real*>(
        RoundUp(reinterpret_cast<int64_t>(scratch.data()), 64));
  }

  void Record(Tensor* out, std::function<void()> backward) {
    if (!backward_) return;
    out->gradient = arena_.Take(images_ * out->Size());
    tape_.push_back([=] {
      if (out->has_gradient) backward();
    });
  }

  Tensor* Like(const Tensor& other) {
    return Make(other.height, other.width, other.channels);
  }
  Tensor* Make(int64_t height, int64_t width, int64_t channels) {
    tensors_.push_back(std::make_unique<Tensor>(
        Tensor{nullptr, nullptr, height, width, channels, Padded(channels), nullptr, false}));
    Tensor* made = tensors_.back().get();
    made->data = arena_.Take(images_ * made->Size());
    return made;
  }

  static void Pad(const Source& source, int64_t size, int64_t image, Real* x) {
    const Tensor& from = *source.tensor;
    const int64_t line = (from.width + size - 1) * from.padded, border = size / 2;
    for (int64_t y = 0; y < from.height; ++y)
      source.Read(image * from.Size() + y * from.width * from.padded, from.width,
                  x + (y + border) * line + border * from.padded, from.padded);
  }

  // ---- normalisation ----

  Norm* MakeNorm(const NormWeights& weights, int64_t padded) {
    norms_.push_back(std::make_unique<Norm>(
        Norm{weights.scale.value, weights.offset.value, weights.scale.gradient,
             weights.offset.gradient, arena_.Zeros(padded), arena_.Zeros(padded),
             arena_.Zeros(padded), arena_.Zeros(padded)}));
    return norms_.back().get();
  }

  // Adds the sums of x and x^2 over an image to those of the thread.
  void AddMoments(int64_t thread, const Tensor& of, int64_t image) {
    if (!of.norm) return;
    const Real* x = of.data + image * of.Size();
    AddSums(thread, of, [=](int64_t at) { return Load(x + at); },
            [=](int64_t at) {
              const Vector value = Load(x + at);
              return value * value;
            });
  }

  template <class First, class Second>
  void AddSums(int64_t thread, const Tensor& of, const First& first, const Second& second) {
    double* sums = moments_ + thread * 2 * of.padded;
    for (int64_t c = 0; c < of.padded; c += kLanes) {
      Vector one = {}, two = {};
      for (int64_t p = 0; p < of.Pixels(); ++p) {
        one += first(p * of.padded + c);
        two += second(p * of.padded + c);
      }
      for (int k = 0; k < kLanes; ++k) {
        sums[c + k] += one[k];
        sums[of.padded + c + k] += two[k];
      }
    }
  }

  double Total(const Tensor& of, int64_t at) const {
    double total = 0;
    for (int64_t thread = 0; thread < threads_; ++thread)
      total += moments_[thread * 2 * of.padded + at];
    return total;
  }

  void FinishNorm(const Tensor& of) {
    constexpr double kEpsilon = 1e-5;
    const Norm& norm = *of.norm;
    const double count = images_ * of.Pixels();
    for (int64_t c = 0; c < of.channels; ++c) {
      const double mean = Total(of, c) / count,
                   variance = std::max(0., Total(of, of.padded + c) / count - mean * mean);
      norm.mean[c] = mean;
      norm.inverse[c] = 1 / std::sqrt(variance + kEpsilon);
      norm.factor[c] = norm.scale[c] * norm.inverse[c];
      norm.shift[c] = norm.offset[c] - mean * norm.factor[c];
    }
  }

  // Gradients of the norm's weights, and the factors that take a gradient through it.
  Through StartBackward(Tensor* of) {
    if (!of->norm) return {};
    const Norm& norm = *of->norm;
    moments_ = reinterpret_cast<double*>(arena_.Zeros(threads_ * 4 * of->padded));
    Parallel([&](int64_t thread, int64_t first, int64_t last) {
      for (int64_t image = first; image < last; ++image) {
        const Real *x = of->data + image * of->Size(), *g = of->gradient + image * of->Size();
        AddSums(thread, *of, [=](int64_t at) { return Load(g + at); },
                [=](int64_t at) { return Load(g + at) * Load(x + at); });
      }
    });
    Real *of_read = arena_.Zeros(of->padded), *of_value = arena_.Zeros(of->padded),
          *constant = arena_.Zeros(of->padded);
    const double count = images_ * of->Pixels();
    for (int64_t c = 0; c < of->channels; ++c) {
      const double sum = Total(*of, c), inverse = norm.inverse[c], mean = norm.mean[c];
      const double along = (Total(*of, of->padded + c) - mean * sum) * inverse;
      norm.of_offset[c] = sum;
      norm.of_scale[c] = along;
      of_read[c] = norm.factor[c];
      of_value[c] = -norm.factor[c] * inverse * along / count;
      constant[c] = -norm.factor[c] * (sum - mean * inverse * along) / count;
    }
    return {of_read, of_value, constant};
  }

  // That gradient of one image, padded by size - 1 pixels; the border of `out` is not written.
  static void ReadGradient(const Tensor& of, const Through& through, int64_t image, int64_t size,
                           Real* out) {
    const int64_t line = (of.width + size - 1) * of.padded, border = size / 2;
    for (int64_t y = 0; y < of.height; ++y) {
      const int64_t at = image * of.Size() + y * of.width * of.padded;
      Real* to = out + (y + border) * line + border * of.padded;
      if (!through.of_read) {
        std::copy_n(of.gradient + at, of.width * of.padded, to);
        continue;
      }
      for (int64_t p = 0; p < of.width * of.padded; p += of.padded)
        for (int64_t c = 0; c < of.padded; c += kLanes)
          Store(to + p + c, Load(of.gradient + at + p + c) * Load(through.of_read + c) +
                                Load(of.data + at + p + c) * Load(through.of_value + c) +
                                Load(through.constant + c));
    }
  }

  // ---- operations with weights ----

  // A product of an image's padded input, which `fill` writes into zeros, with weights in parts.
  // `drain` takes the gradient of that input, without the padding, to the tensors `read`; null: it
  // is not wanted.
  Tensor* Apply(const Product& product, int64_t channels, Fill fill, Drain drain,
                std::vector<Part> parts, const NormWeights* norm,
                std::vector<Tensor*> read = {}, std::function<void()> finish = nullptr) {
    Tensor* out = Make(product.height, product.width, channels);
    if (norm) out->norm = MakeNorm(*norm, out->padded);
    Real *whole = arena_.Zeros(product.WeightSize()), *packed = arena_.Take(product.WeightSize());
    for (const Part& part : parts)
      for (int64_t tap = 0; tap < product.Taps(); ++tap)
        for (int64_t row = 0; row < part.rows; ++row)
          std::copy_n(part.weights.value + (tap * part.rows + row) * part.columns, part.columns,
                      whole + (tap * product.depth + part.row + row) * product.columns +
                          part.column);
    Pack(product, whole, packed);
    ForBlocks(out, [&](int64_t thread, int64_t first, int64_t last) {
      Real* x = Scratch(thread, product.InputSize());
      std::fill_n(x, product.InputSize(), Real(0));
      for (int64_t image = first; image < last; ++image) {
        fill(thread, image, x);
        Multiply(product, x, packed, out->data + image * out->Size());
        AddMoments(thread, *out, image);
      }
    });
    Record(out, [=, this] {
      // The gradient of the input is a product of the gradient of the output, padded, with the
      // weights turned by half a turn and transposed.
      const Product back = {product.height,  product.width,    product.size,
                            out->channels, product.columns, Padded(product.stride)};
      Real* turned = drain ? arena_.Zeros(back.WeightSize()) : nullptr;
      Real* repacked = drain ? arena_.Take(back.WeightSize()) : nullptr;
      if (drain) {
        for (int64_t tap = 0; tap < product.Taps(); ++tap)
          for (int64_t row = 0; row < product.depth; ++row)
            for (int64_t column = 0; column < out->channels; ++column)
              turned[((product.Taps() - 1 - tap) * out->channels + column) * back.columns + row] =
                  whole[(tap * product.depth + row) * product.columns + column];
        Pack(back, turned, repacked);
      }
      const Through through = StartBackward(out);
      Real* of_weights = arena_.Take(threads_ * product.WeightSize());
      const bool add = !read.empty() && read[0]->has_gradient;
      Parallel([&](int64_t thread, int64_t first, int64_t last) {
        const int64_t border = product.size / 2;
        const int64_t image_size = product.height * product.width * back.columns;
        Real* x = Scratch(thread, product.InputSize() + back.InputSize() + image_size + 64);
        Real* z = x + RoundUp(product.InputSize(), kLanes);
        Real* gradient = z + back.InputSize();
        std::fill_n(x, gradient - x, Real(0));
        Real* own = of_weights + thread * product.WeightSize();
        std::fill_n(own, product.WeightSize(), Real(0));
        for (int64_t image = first; image < last; ++image) {
          fill(thread, image, x);
          Flat(*out, through, image, product, z);
          Correlate(product, x, z + border * back.Line() + border * back.stride, back.Line(), own);
          if (!drain) continue;
          Multiply(back, z, repacked, gradient);
          drain(thread, image, gradient, add);
        }
      });
      for (Tensor* tensor : read) tensor->has_gradient = true;
      for (int64_t thread = 1; thread < threads_; ++thread)
        for (int64_t k = 0; k < product.WeightSize(); ++k)
          of_weights[k] += of_weights[thread * product.WeightSize() + k];
      for (const Part& part : parts)
        for (int64_t tap = 0; tap < product.Taps(); ++tap)
          for (int64_t row = 0; row < part.rows; ++row)
            std::copy_n(of_weights + (tap * product.depth + part.row + row) * product.columns +
                            part.column,
                        part.columns,
                        part.weights.gradient + (tap * part.rows + row) * part.columns);
      if (finish) finish();
    });
    return out;
  }

  // ReadGradient for a product, which may see the pixels of an image as one line.
  static void Flat(const Tensor& of, const Through& through, int64_t image, const Product& product,
                   Real* z) {
    Tensor seen = of;
    seen.height = product.height;
    seen.width = product.width;
    ReadGradient(seen, through, image, product.size, z);
  }

  template <int size>
  Tensor* SeparableOf(Source source, Weights depth, Weights point, const NormWeights& norm) {
    constexpr int64_t kTaps = size * size;
    const Tensor& from = *source.tensor;
    const int64_t height = from.height, width = from.width, channels = from.channels,
                  padded = from.padded;
    const int64_t input_size = (height + size - 1) * (width + size - 1) * padded;
    const Product product = {1, height * width, 1, channels, padded, padded};
    Real *weights = arena_.Zeros(kTaps * padded), *turned = arena_.Zeros(kTaps * padded);
    for (int64_t tap = 0; tap < kTaps; ++tap) {
      std::copy_n(depth.value + tap * channels, channels, weights + tap * padded);
      std::copy_n(depth.value + tap * channels, channels, turned + (kTaps - 1 - tap) * padded);
    }
    Real* inputs = arena_.Zeros(threads_ * input_size);
    Real* gradients = backward_ ? arena_.Zeros(threads_ * input_size) : nullptr;
    Real* returned = backward_ ? arena_.Take(threads_ * from.Size()) : nullptr;
    Real* of_weights = backward_ ? arena_.Zeros(threads_ * kTaps * padded) : nullptr;
    const auto fill = [=](int64_t thread, int64_t image, Real* x) {
      Real* input = inputs + thread * input_size;
      Pad(source, size, image, input);
      Depthwise<size>(height, width, padded, input, weights, x);
    };
    const auto drain = [=](int64_t thread, int64_t image, const Real* gradient, bool add) {
      constexpr int64_t kBorder = size / 2;
      const int64_t line = (width + size - 1) * padded;
      Real* z = gradients + thread * input_size;
      for (int64_t y = 0; y < height; ++y)
        std::copy_n(gradient + y * width * padded, width * padded,
                    z + (y + kBorder) * line + kBorder * padded);
      DepthwiseCorrelate<size>(height, width, padded, inputs + thread * input_size,
                               z + kBorder * line + kBorder * padded, line,
                               of_weights + thread * kTaps * padded);
      Real* result = returned + thread * source.tensor->Size();
      Depthwise<size>(height, width, padded, z, turned, result);
      source.Return(image * source.tensor->Size(), height * width, result, padded, add);
    };
    const auto finish = [=, this] {
      for (int64_t thread = 1; thread < threads_; ++thread)
        for (int64_t k = 0; k < kTaps * padded; ++k)
          of_weights[k] += of_weights[thread * kTaps * padded + k];
      for (int64_t tap = 0; tap < kTaps; ++tap)
        std::copy_n(of_weights + tap * padded, channels, depth.gradient + tap * channels);
    };
    Tensor* out = Apply(product, channels, fill, drain, {{point, 0, channels, 0, channels}}, &norm,
                        {source.tensor}, finish);
    out->height = height;
    out->width = width;
    return out;
  }

  template <bool maximum>
  Tensor* PoolOf(Source source) {
    Tensor* from = source.tensor;
    Tensor* out = Like(*from);
    const int64_t height = from->height, width = from->width, padded = from->padded;
    const int64_t line = (width + 2) * padded, input_size = (height + 2) * line;
    const Real outside = maximum ? -std::numeric_limits<Real>::infinity() : 0;
    // One over how many of the three places around a line or column are inside.
    const auto share = [](int64_t at, int64_t size) {
      return Real(1) / (1 + (at > 0) + (at + 1 < size));
    };
    ForBlocks(out, [&](int64_t thread, int64_t first, int64_t last) {
      Real* x = Scratch(thread, input_size);
      std::fill_n(x, input_size, outside);
      for (int64_t image = first; image < last; ++image) {
        Pad(source, 3, image, x);
        Real* to = out->data + image * out->Size();
        for (int64_t y = 0; y < height; ++y)
          for (int64_t p = 0; p < width; ++p, to += padded)
            for (int64_t c = 0; c < padded; c += kLanes) {
              const Real* window = x + y * line + p * padded + c;
              Vector found = Load(window);
#pragma GCC unroll 9
              for (int tap = 1; tap < 9; ++tap) {
                const Vector value = Load(window + tap / 3 * line + tap % 3 * padded);
                found = maximum ? (value > found ? value : found) : found + value;
              }
              Store(to + c, maximum ? found : found * (share(y, height) * share(p, width)));
            }
      }
    });
    Record(out, [=, this] {
      const bool add = from->has_gradient;
      Parallel([&](int64_t thread, int64_t first, int64_t last) {
        Real *x = Scratch(thread, 2 * input_size + from->Size()), *g = x + input_size,
              *inside = g + input_size;
        std::fill_n(x, input_size, outside);
        for (int64_t image = first; image < last; ++image) {
          const Real* z = out->gradient + image * out->Size();
          std::fill_n(g, input_size, Real(0));
          if (maximum) Pad(source, 3, image, x);
          for (int64_t y = 0; y < height; ++y)
            for (int64_t p = 0; p < width; ++p, z += padded)
              for (int64_t c = 0; c < padded; c += kLanes) {
                const int64_t at = y * line + p * padded + c;
                if (maximum) {  // the gradient goes to the first place that has the maximum
                  Vector largest = Load(x + at), left = Load(z + c);
                  for (int tap = 1; tap < 9; ++tap) {
                    const Vector value = Load(x + at + tap / 3 * line + tap % 3 * padded);
                    largest = value > largest ? value : largest;
                  }
                  for (int tap = 0; tap < 9; ++tap) {
                    const int64_t place = at + tap / 3 * line + tap % 3 * padded;
                    const Vector taken = Load(x + place) == largest ? left : Vector{};
                    Store(g + place, Load(g + place) + taken);
                    left -= taken;
                  }
                } else {
                  const Vector part = Load(z + c) * (share(y, height) * share(p, width));
                  for (int tap = 0; tap < 9; ++tap) {
                    const int64_t place = at + tap / 3 * line + tap % 3 * padded;
                    Store(g + place, Load(g + place) + part);
                  }
                }
              }
          for (int64_t y = 0; y < height; ++y)
            std::copy_n(g + (y + 1) * line + padded, width * padded, inside + y * width * padded);
          source.Return(image * from->Size(), from->Pixels(), inside, padded, add);
        }
      });
      from->has_gradient = true;
    });
    return out;
  }

  Call& call_;
  Arena& arena_;
  const int64_t images_, threads_;
  const bool backward_;
  double* moments_ = nullptr;  // [threads][2][padded]
  std::vector<std::vector<Real>> scratch_ = std::vector<std::vector<Real>>(threads_);
  std::vector<std::unique_ptr<Tensor>> tensors_;
  std::vector<std::unique_ptr<Norm>> norms_;
  std::vector<std::function<void()>> tape_;
};

// ---- What XLA calls ----

// The operands that both networks begin with, and the results that both have: loss [] and accuracy
// []; and where there are more, the gradient of every array of weights.
struct Batch {
  explicit Batch(Call& call) {
    const Real* images = call.Operand<Real>();
    count = call.shape[0];
    input = {images, call.shape[1], call.shape[2], call.shape[3]};
    labels = call.Operand<int32_t>();
    mask = call.Operand<Real>();
    loss = call.Result<Real>();
    accuracy = call.Result<Real>();
    backward = call.HasResult();
  }

  int64_t count;
  Network::Input input;
  const int32_t* labels;
  const Real* mask;  // [images][channels] of dropout
  Real *loss, *accuracy;
  bool backward;
};

// The weights of a network, in their order.
class Reader {
 public:
  Reader(Call& call, bool backward) : call_(call), backward_(backward) {}

  Weights Next() {
    const Real* value = call_.Operand<Real>();
    if (!backward_) return {value, nullptr};
    Real* gradient = call_.Result<Real>();
    std::fill_n(gradient, call_.Size(), Real(0));
    return {value, gradient};
  }
  NormWeights Norm() {
    const Weights scale = Next();
    return {scale, Next()};
  }

 private:
  Call& call_;
  const bool backward_;
};

struct Reduction {
  explicit Reduction(Reader& reader)
      : even(reader.Next()), odd(reader.Next()), norm(reader.Norm()) {}

  Weights even, odd;
  NormWeights norm;
};

// First operands: operation of every layer [L], skips [L][L].
void Macro(Call& call) {
  enum { kConvolution3, kSeparable3, kConvolution5, kSeparable5, kAverage, kMaximum };
  const int32_t* operations = call.Operand<int32_t>();
  const int64_t layers = call.shape[0];
  const int32_t* skips = call.Operand<int32_t>();
  const Batch batch(call);
  Reader reader(call, batch.backward);
  BorrowedArena arena;
  Network network(call, *arena, batch.count, batch.backward);

  const Weights stem = reader.Next();
  const int64_t channels = call.shape[3], matrix = channels * channels;
  const NormWeights stem_norm = reader.Norm();
  const Weights enter = reader.Next();
  const NormWeights enter_norm = reader.Norm();
  const Weights convolution3 = reader.Next(), convolution5 = reader.Next();
  const Weights depth3 = reader.Next(), point3 = reader.Next();
  const Weights depth5 = reader.Next(), point5 = reader.Next();
  const NormWeights leave_norm = reader.Norm(), join_norm = reader.Norm();
  const Reduction reductions[] = {Reduction(reader), Reduction(reader)};
  const Weights head = reader.Next();
  const int64_t classes = call.shape[1];

  std::vector<Tensor*> outputs = {network.Stem(batch.input, channels, stem, stem_norm)};
  int reduced = 0;
  for (int64_t k = 0; k < layers; ++k) {
    Tensor* entered = network.Convolution({outputs[k], false}, 1, channels, enter + k * matrix,
                                          enter_norm + k * channels);
    const Source source = {entered, true};
    const NormWeights norm = leave_norm + k * channels;
    const int32_t operation = operations[k];
    Tensor* left =
        operation == kConvolution3
            ? network.Convolution(source, 3, channels, convolution3 + k * 9 * matrix, norm)
        : operation == kConvolution5
            ? network.Convolution(source, 5, channels, convolution5 + k * 25 * matrix, norm)
        : operation == kSeparable3
            ? network.Separable(source, 3, depth3 + k * 9 * channels, point3 + k * matrix, norm)
        : operation == kSeparable5
            ? network.Separable(source, 5, depth5 + k * 25 * channels, point5 + k * matrix, norm)
            : network.Pool(source, operation == kMaximum);
    std::vector<Source> summands = {{left, operation < kAverage}};
    for (int64_t j = 0; j < k; ++j)
      if (skips[k * layers + j]) summands.push_back({outputs[j], false});
    const NormWeights join = join_norm + k * channels;
    outputs.push_back(network.Sum(summands, &join));
    if (k + 1 == layers / 3 || k + 1 == 2 * layers / 3) {
      const Reduction& by = reductions[reduced++];
      for (int64_t j = 0; j <= k + 1; ++j) {
        bool needed = j == k + 1;  // the next layer reads it; others may skip to it
        for (int64_t later = k + 1; later < layers; ++later) {
          needed |= skips[later * layers + j] > 0;
        }
        if (needed)
          outputs[j] = network.Reduce({outputs[j], false}, channels, by.even + j * matrix / 2,
                                      by.odd + j * matrix / 2, by.norm + j * channels);
      }
    }
  }
  network.Head({outputs.back(), false}, head, classes, batch.mask, batch.labels, batch.loss,
               batch.accuracy);
}

// First operands: what every operation reads [2][blocks][2], and which it is [2][blocks][2].
void Micro(Call& call) {
  enum { kSeparable3, kSeparable5, kAverage, kMaximum, kIdentity };
  const int32_t* reads = call.Operand<int32_t>();
  const int64_t blocks = call.shape[1];
  const int32_t* operations = call.Operand<int32_t>();
  const int64_t cells = *call.Operand<int32_t>();
  const Batch batch(call);
  Reader reader(call, batch.backward);
  BorrowedArena arena;
  Network network(call, *arena, batch.count, batch.backward);

  const Weights stem = reader.Next();
  const int64_t stem_channels = call.shape[3];
  int64_t channels = stem_channels / 3;
  Tensor* last = network.Stem(batch.input, stem_channels, stem, reader.Norm());
  Tensor* before = last;
  for (int64_t cell = 0; cell < cells; ++cell) {
    const int64_t normal = cells - 2;
    const bool reduces = cell == normal / 3 || cell == 2 * (normal / 3) + 1;
    if (reduces) {
      channels *= 2;
      const Reduction by(reader);
      Tensor* reduced = network.Reduce({last, false}, channels, by.even, by.odd, by.norm);
      before = last;
      last = reduced;
    }
    std::vector<Tensor*> nodes = {before, last};
    for (Tensor*& node : nodes) {
      if (node->height != last->height) {
        const Reduction by(reader);
        node = network.Reduce({node, true}, channels, by.even, by.odd, by.norm);
      } else if (node->channels != channels) {
        const Weights weights = reader.Next();
        node = network.Convolution({node, true}, 1, channels, weights, reader.Norm());
      }
    }
    struct Separable {
      Weights depth, point;
      NormWeights norm;
    } separables[2];
    for (Separable& separable : separables) {
      separable.depth = reader.Next();
      separable.point = reader.Next();
      separable.norm = reader.Norm();
    }
    const Weights leave = reader.Next();
    const NormWeights leave_norm = reader.Norm();

    const int32_t* own_reads = reads + reduces * blocks * 2;
    const int32_t* own_operations = operations + reduces * blocks * 2;
    std::vector<bool> is_read(blocks + 2);
    for (int64_t block = 0; block < blocks; ++block) {
      std::vector<Source> summands;
      for (int64_t at = 2 * block; at < 2 * block + 2; ++at) {
        const int32_t operation = own_operations[at];
        is_read[own_reads[at]] = true;
        Source source = {nodes[own_reads[at]], false};
        if (operation == kAverage || operation == kMaximum) {
          source.tensor = network.Pool(source, operation == kMaximum);
        } else if (operation != kIdentity) {
          const Separable& by = separables[operation];
          const int64_t size = operation == kSeparable3 ? 3 : 5;
          for (int64_t pair = 2 * at; pair < 2 * at + 2; ++pair)
            source.tensor = network.Separable(
                {source.tensor, true}, size, by.depth + pair * size * size * channels,
                by.point + pair * channels * channels, by.norm + pair * channels);
        }
        summands.push_back(source);
      }
      nodes.push_back(network.Sum(summands));
    }
    std::vector<Source> loose;
    std::vector<Weights> weights;
    for (int64_t i = 0; i < blocks + 2; ++i) {
      if (is_read[i]) continue;
      loose.push_back({nodes[i], true});
      weights.push_back(leave + i * channels * channels);
    }
    before = last;
    last = network.Join(loose, channels, weights, leave_norm);
  }
  const Weights head = reader.Next();
  network.Head({last, true}, head, call.shape[1], batch.mask, batch.labels, batch.loss,
               batch.accuracy);
}

}  // namespace

extern "C" XLA_FFI_Error* macro(XLA_FFI_CallFrame* frame) { return Handle(frame, Macro); }
extern "C" XLA_FFI_Error* micro(XLA_FFI_CallFrame* frame) { return Handle(frame, Micro); }
