// Convolution by overlap-save. A thread processes a few tiles at a time, so that it reads the weights of a frequency
// once for all of them.
#include "product.h"
#include "tiling.h"
#include "../common/kernels.h"
#include "../common/parallel.h"

namespace deal {
namespace DEAL_ISA {
namespace {

int tiles_at_a_time(int tile) { return tile == 32 ? 12 : 24; }

class Forward {
 public:
  explicit Forward(const ConvForward& a)
      : a_(a),
        in_(a.in_channels),
        out_(a.out_channels),
        tiling_{a.batch,
                {a.out_height(), a.dilation_h, a.tile - int(a.kernel_h) + 1},
                {a.out_width(), a.dilation_w, a.tile - int(a.kernel_w) + 1}},
        tile_((is_winograd(a.tile) ? 1 : 2) * (in_.padded > out_.padded ? in_.both() : out_.both())),
        // One cache line more, so that the values of a tile do not map to the same cache sets.
        apart_(tiles_at_a_time(a.tile) * tile_ + 16) {}

  int64_t tiles() const { return tiling_.count(); }

  void run(int64_t begin, int64_t end) const {
    const int64_t most = tiles_at_a_time(a_.tile), frequencies = conv_frequencies(a_.tile);
    const int64_t weights = conv_planes(a_.tile) * a_.in_channels * out_.both();
    float* const spectra = workspace(frequencies * apart_ + apply_weights_floats(int(most), in_, out_.both()));
    float* const scratch = spectra + frequencies * apart_;
    const auto apply = is_winograd(a_.tile) ? apply_real_weights : apply_weights;
    for (; begin < end; begin += most) {
      const int count = int(end - begin < most ? end - begin : most);
      for (int i = 0; i < count; ++i) read(tiling_[begin + i], {spectra + i * tile_, apart_, in_.both()});
      for (int64_t f = 0; f < frequencies; ++f)
        apply({spectra + f * apart_, tile_, in_.both()}, count, in_, a_.spectrum + f * weights, out_.both(), scratch);
      for (int i = 0; i < count; ++i) write(tiling_[begin + i], {spectra + i * tile_, apart_, out_.both()});
    }
  }

 private:
  void read(const TileOrigin& origin, const Spectrum& to) const {
    const Source source = {a_.x + origin.image * a_.in_channels * a_.height * a_.width,
                           nullptr,
                           a_.in_channels,
                           steps_of(a_.in_channels, a_.height, a_.width, a_.channels_last),
                           axis(origin.y, a_.dilation_h, a_.tile, a_.height, a_.top, a_.bottom, a_.mode),
                           axis(origin.x, a_.dilation_w, a_.tile, a_.width, a_.left, a_.right, a_.mode)};
    analyse(a_.tile, source, Planes::pixels, to);
  }

  void write(const TileOrigin& origin, const Spectrum& from) const {
    const int64_t height = a_.out_height(), width = a_.out_width();
    const int64_t image = origin.image * a_.out_channels * height * width;
    const Sink sink = {a_.out + image,
                       a_.bias,
                       a_.residual ? a_.residual + image : nullptr,
                       a_.relu,
                       a_.out_channels,
                       steps_of(a_.out_channels, height, width, a_.channels_last),
                       origin.y,
                       origin.x,
                       a_.dilation_h,
                       a_.dilation_w,
                       tiling_.rows.yields(origin.y),
                       tiling_.columns.yields(origin.x),
                       nullptr};
    synthesise(a_.tile, from, sink);
  }

  const ConvForward& a_;
  const Halves in_, out_;
  const Tiling tiling_;
  const int64_t tile_, apart_;  // distances of the spectra of two tiles, and of two frequencies
};

}  // namespace

void conv_spectrum(const ConvSpectrum& a, int threads) {
  const int64_t in = a.transposed ? a.out_channels : a.in_channels, out = a.transposed ? a.in_channels : a.out_channels;
  const int64_t places = a.kernel_h * a.kernel_w, row = Halves(out).both(), planes = conv_planes(a.tile);
  Axis rows = axis(0, 1, int(a.kernel_h), a.kernel_h, 0, 0, Padding::zeros);
  Axis columns = axis(0, 1, int(a.kernel_w), a.kernel_w, 0, 0, Padding::zeros);
  for (int64_t y = 0; a.transposed && y < a.kernel_h; ++y) rows.at[y] = int(a.kernel_h - 1 - y);
  for (int64_t x = 0; a.transposed && x < a.kernel_w; ++x) columns.at[x] = int(a.kernel_w - 1 - x);
  columns.begin = columns.end = 0;
  parallel_for(in, 1, threads, [&](int64_t begin, int64_t end, int) {
    for (int64_t c = begin; c < end; ++c) {
      const Source source = {a.weight + c * (a.transposed ? a.in_channels : 1) * places, nullptr, out,
                             {(a.transposed ? 1 : a.in_channels) * places, a.kernel_w, 1}, rows, columns};
      analyse(a.tile, source, Planes::weights, {a.spectrum + c * row, planes * in * row, in * row});
    }
  });
}

void conv_forward(const ConvForward& a, int threads) {
  const Forward forward(a);
  parallel_for(forward.tiles(), 1, threads, [&](int64_t begin, int64_t end, int) { forward.run(begin, end); });
}

}  // namespace DEAL_ISA
}  // namespace deal
