// The gradients of a convolution. The gradient of the input is a convolution of the result's gradient. The gradient of
// the weights is, at each frequency, a sum over tiles of products of the same spectra with those of the input. The
// order of this sum does not depend on the threads: they share first the tiles, then the frequencies.
#include "bias.h"
#include "correlation.h"
#include "tiling.h"
#include "../common/kernels.h"
#include "../common/parallel.h"

namespace deal {
namespace DEAL_ISA {
namespace {

// Tiles that are summed before the sum is added to that of other tiles.
int tiles_of_a_sum(int tile) { return tile == 16 ? 32 : 16; }

class Backward {
 public:
  Backward(const ConvBackward& a, int threads)
      : a_(a),
        threads_(threads),
        in_(a.in_channels),
        out_(a.out_channels),
        grad_(a.grad_residual && a.out ? a.grad_residual : a.grad),
        mask_(a.grad_residual ? nullptr : a.out),
        framed_(a.mode != Padding::zeros),
        frame_{nullptr,
               framed_ ? a.top : 0,
               framed_ ? a.bottom : 0,
               framed_ ? a.left : 0,
               framed_ ? a.right : 0,
               a.height,
               a.width},
        tiling_{a.batch,
                {frame_.top + a.height + frame_.bottom, a.dilation_h, a.tile - int(a.kernel_h) + 1},
                {frame_.left + a.width + frame_.right, a.dilation_w, a.tile - int(a.kernel_w) + 1}},
        frequencies_(conv_frequencies(a.tile)),
        x_tile_(a.grad_weight ? 2 * in_.both() : 0),
        tile_(2 * (a.grad_x && in_.padded > out_.padded ? in_.both() : out_.both())),
        most_(tiles_of_a_sum(a.tile)) {}

  void run() {
    const int64_t sums = a_.grad_weight ? frequencies_ * 2 * a_.in_channels * out_.both() : 0;
    const int64_t each = scratch_floats(), pixels = frame_.count() * a_.in_channels;
    float* const scratch = workspace(frequencies_ * most_ * (x_tile_ + tile_) + sums + threads_ * each);
    x_ = scratch;
    g_ = x_ + frequencies_ * most_ * x_tile_;
    sums_ = g_ + frequencies_ * most_ * tile_;
    scratch_ = sums_ + sums;
    for (int64_t i = 0; i < sums; ++i) sums_[i] = 0;
    const Buffer<float> frames(framed_ && a_.grad_x ? a_.batch * pixels : 0, Fill::none);
    frames_ = frames.get();
    const int64_t tiles = tiling_.count();
    for (int64_t begin = 0; begin < tiles; begin += most_) {
      const int count = int(tiles - begin < most_ ? tiles - begin : most_);
      read(begin, count);
      multiply(count);
      if (!a_.grad_x) continue;
      parallel_for(count, 1, threads_, [&](int64_t first, int64_t last, int) {
        for (int64_t i = first; i < last; ++i)
          write_input(tiling_[begin + i], {g_ + i * tile_, most_ * tile_, in_.both()});
      });
    }
    if (a_.grad_weight) write_weight();
    if (frames_) fold();
  }

 private:
  // Size of a thread's scratch memory for one frequency.
  int64_t scratch_floats() const {
    const int64_t one = apply_weights_floats(int(most_), out_, in_.both());
    const int64_t other = add_correlation_floats(int(most_), in_, out_);
    return one > other ? one : other;
  }

  void read(int64_t begin, int count) {
    const int64_t each = a_.grad_weight ? 2 : 1;
    parallel_for(count * each, each, threads_, [&](int64_t first, int64_t last, int) {
      for (int64_t i = first; i < last; ++i) {
        const TileOrigin origin = tiling_[begin + i / each];
        if (i % each == 0) read_gradient(origin, {g_ + i / each * tile_, most_ * tile_, out_.both()});
        else read_input(origin, {x_ + i / each * x_tile_, most_ * x_tile_, in_.both()});
      }
    });
  }

  void read_gradient(const TileOrigin& origin, const Spectrum& to) const {
    const int64_t height = a_.out_height(), width = a_.out_width();
    const int64_t image = origin.image * a_.out_channels * height * width;
    const int64_t above = a_.dilation_h * (a_.kernel_h - 1) - a_.top + frame_.top;
    const int64_t before = a_.dilation_w * (a_.kernel_w - 1) - a_.left + frame_.left;
    const Source source = {grad_ + image,
                           mask_ ? mask_ + image : nullptr,
                           a_.out_channels,
                           steps_of(a_.out_channels, height, width, a_.channels_last),
                           axis(origin.y, a_.dilation_h, a_.tile, height, above, kEndless, Padding::zeros),
                           axis(origin.x, a_.dilation_w, a_.tile, width, before, kEndless, Padding::zeros)};
    analyse(a_.tile, source, Planes::pixels, to);
  }

  // Reads only the pixels for which the tile gives results.
  void read_input(const TileOrigin& origin, const Spectrum& to) const {
    const Source source = {
        a_.x + origin.image * a_.in_channels * a_.height * a_.width,
        nullptr,
        a_.in_channels,
        steps_of(a_.in_channels, a_.height, a_.width, a_.channels_last),
        axis(origin.y, a_.dilation_h, tiling_.rows.yields(origin.y), a_.height, frame_.top, frame_.bottom, a_.mode),
        axis(origin.x, a_.dilation_w, tiling_.columns.yields(origin.x), a_.width, frame_.left, frame_.right, a_.mode)};
    analyse(a_.tile, source, Planes::pixels, to);
  }

  void multiply(int count) {
    const float scale = 1.0f / float(4 * a_.tile * a_.tile);
    parallel_for(frequencies_, 1, threads_, [&](int64_t begin, int64_t end, int thread) {
      float* const scratch = scratch_ + thread * scratch_floats();
      for (int64_t f = begin; f < end; ++f) {
        const Tiles x = {x_ + f * most_ * x_tile_, x_tile_, in_.both()};
        const Tiles g = {g_ + f * most_ * tile_, tile_, out_.both()};
        if (a_.grad_weight)
          add_correlation(x, g, count, in_, scale, sums_ + f * 2 * a_.in_channels * out_.both(), scratch);
        if (a_.grad_x)
          apply_weights(g, count, out_, a_.spectrum + f * 3 * a_.out_channels * in_.both(), in_.both(), scratch);
      }
    });
  }

  void write_input(const TileOrigin& origin, const Spectrum& from) const {
    Frame frame = frame_;
    if (frames_) frame.pixels = frames_ + origin.image * frame_.count() * a_.in_channels;
    const Sink sink = {a_.grad_x + origin.image * a_.in_channels * a_.height * a_.width,
                       nullptr,
                       nullptr,
                       false,
                       a_.in_channels,
                       steps_of(a_.in_channels, a_.height, a_.width, a_.channels_last),
                       origin.y - frame_.top,
                       origin.x - frame_.left,
                       a_.dilation_h,
                       a_.dilation_w,
                       tiling_.rows.yields(origin.y),
                       tiling_.columns.yields(origin.x),
                       frames_ ? &frame : nullptr};
    synthesise(a_.tile, from, sink);
  }

  // Kernel positions are in reverse order in the result.
  void write_weight() const {
    const int64_t places = a_.kernel_h * a_.kernel_w, row = out_.both();
    parallel_for(a_.in_channels, 1, threads_, [&](int64_t begin, int64_t end, int) {
      for (int64_t c = begin; c < end; ++c) {
        const Steps reversed = {a_.in_channels * places, -a_.kernel_w, -1};
        const Sink sink = {a_.grad_weight + c * places + places - 1, nullptr, nullptr, false, a_.out_channels, reversed,
                           0, 0, 1, 1, int(a_.kernel_h), int(a_.kernel_w), nullptr};
        synthesise(a_.tile, {sums_ + c * row, 2 * a_.in_channels * row, a_.in_channels * row}, sink);
      }
    });
  }

  // Adds the gradients of padding pixels to those of the pixels they were copied from.
  void fold() const {
    const int64_t height = a_.height, width = a_.width;
    const Steps steps = steps_of(a_.in_channels, height, width, a_.channels_last);
    parallel_for(a_.batch * a_.in_channels, 1, threads_, [&](int64_t begin, int64_t end, int) {
      for (int64_t y = -frame_.top; y < height + frame_.bottom; ++y) {
        const bool inside = y >= 0 && y < height;
        for (int64_t x = -frame_.left; x < width + frame_.right; ++x) {
          if (inside && x == 0) x = width;
          if (x >= width + frame_.right) break;
          const int64_t to = pixel_at(y, height, a_.mode) * steps.row + pixel_at(x, width, a_.mode) * steps.column;
          for (int64_t i = begin; i < end; ++i) {
            const int64_t image = i / a_.in_channels, c = i % a_.in_channels;
            a_.grad_x[image * a_.in_channels * height * width + to + c * steps.channel] +=
                frames_[(image * frame_.count() + frame_.index(y, x)) * a_.in_channels + c];
          }
        }
      }
    });
  }

  const ConvBackward& a_;
  const int threads_;
  const Halves in_, out_;
  const float *const grad_, *const mask_;
  const bool framed_;
  const Frame frame_;
  const Tiling tiling_;
  const int64_t frequencies_;
  const int64_t x_tile_, tile_;  // distance of the spectra of two tiles
  const int64_t most_;           // tiles processed at a time
  float *x_, *g_, *sums_, *scratch_, *frames_;
};

}  // namespace

void conv_backward(const ConvBackward& a, int threads) {
  if (a.grad_bias || a.grad_residual) BiasGradient(a, threads).run();
  if (a.grad_x || a.grad_weight) Backward(a, threads).run();
}

}  // namespace DEAL_ISA
}  // namespace deal
