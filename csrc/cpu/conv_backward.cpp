// The gradients of a convolution. Tiles are those of the input's gradient, a convolution of the result's gradient; the
// weights' gradient is, at each frequency, a sum over tiles of the same spectra with those of the input. Its order is
// the tiles', whatever the threads: they share the tiles, then the frequencies.
#include <cstdlib>

#include "conv_product.h"
#include "conv_tiling.h"
#include "kernels.h"
#include "parallel.h"

namespace deal {
namespace DEAL_ISA {
namespace {

constexpr int64_t kRows = 16;  // of the result's gradient, whose sums are found together

// Tiles whose products are summed up before they are added to others, and as many at a time.
int tiles_at_a_time(int tile) { return tile == 16 ? 32 : 16; }

class Backward {
 public:
  explicit Backward(const ConvBackward& a)
      : a_(a),
        in_(a.in_channels),
        out_(a.out_channels),
        padded_(a.mode != Padding::zeros && a.grad_x),
        frame_{nullptr, padded_ ? a.top : 0, padded_ ? a.bottom : 0, padded_ ? a.left : 0, padded_ ? a.right : 0, a.height, a.width},
        tiling_{a.batch,
                {frame_.top + a.height + frame_.bottom, a.dilation_h, a.tile - int(a.kernel_h) + 1},
                {frame_.left + a.width + frame_.right, a.dilation_w, a.tile - int(a.kernel_w) + 1}},
        frequencies_(conv_frequencies(a.tile)) {}

 private:
  const ConvBackward& a_;
  const Halves in_, out_;
  const bool padded_;
  const Frame frame_;
  const Tiling tiling_;
  const int64_t frequencies_;
};

}  // namespace

void conv_backward(const ConvBackward& a, int threads) {
  (void)a, (void)threads;
}

}  // namespace DEAL_ISA
}  // namespace deal
