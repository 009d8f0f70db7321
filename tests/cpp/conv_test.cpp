// The convolution against loops over single pixels in double precision, in buffers of exactly the size it needs, so
// that a sanitizer sees every stray access.
#include <cmath>
#include <cstdio>
#include <cstring>
#include <random>
#include <vector>

#include "../../csrc/cpu/common/kernels.h"
#include "../../csrc/math/spectrum.h"

using namespace deal;

namespace {

int failures = 0;

using Floats = std::vector<float>;
using Doubles = std::vector<double>;

int64_t at(const ConvShape& a, int64_t n, int64_t c, int64_t y, int64_t x, int64_t channels, int64_t height,
           int64_t width) {
  if (a.channels_last) return ((n * height + y) * width + x) * channels + c;
  return ((n * channels + c) * height + y) * width + x;
}
int64_t at_x(const ConvShape& a, int64_t n, int64_t c, int64_t y, int64_t x) {
  return at(a, n, c, y, x, a.in_channels, a.height, a.width);
}
int64_t at_out(const ConvShape& a, int64_t n, int64_t c, int64_t y, int64_t x) {
  return at(a, n, c, y, x, a.out_channels, a.out_height(), a.out_width());
}

// Where a place in the padded image is read from, or -1.
int64_t source(int64_t i, int64_t length, Padding mode) {
  if (i >= 0 && i < length) return i;
  if (mode == Padding::zeros) return -1;
  if (mode == Padding::replicate) return i < 0 ? 0 : length - 1;
  return i < 0 ? -i : 2 * (length - 1) - i;
}

// Calls visit(place in out, in x, in the weights) for all products.
template <class Visit>
void each_product(const ConvShape& a, const Visit& visit) {
  for (int64_t n = 0; n < a.batch; ++n)
    for (int64_t y = 0; y < a.out_height(); ++y)
      for (int64_t x = 0; x < a.out_width(); ++x)
        for (int64_t i = 0; i < a.kernel_h; ++i)
          for (int64_t k = 0; k < a.kernel_w; ++k) {
            const int64_t from_y = source(y + i * a.dilation_h - a.top, a.height, a.mode);
            const int64_t from_x = source(x + k * a.dilation_w - a.left, a.width, a.mode);
            if (from_y < 0 || from_x < 0) continue;
            for (int64_t o = 0; o < a.out_channels; ++o)
              for (int64_t c = 0; c < a.in_channels; ++c)
                visit(size_t(at_out(a, n, o, y, x)), size_t(at_x(a, n, c, from_y, from_x)),
                      size_t(((o * a.in_channels + c) * a.kernel_h + i) * a.kernel_w + k));
          }
}

void expect_near(const char* what, const ConvShape& a, const Floats& got, const Doubles& expected, double tolerance) {
  double error = 0, norm = 1e-30;
  for (size_t i = 0; i < got.size(); ++i) {
    error += (got[i] - expected[i]) * (got[i] - expected[i]);
    norm += expected[i] * expected[i];
  }
  if (std::sqrt(error / norm) <= tolerance) return;  // also fails on NaN
  std::printf("%s: [%ld, %ld, %ld, %ld] to %ld, kernel %ld x %ld, dilation %ld %ld, mode %d, tile %d, %s: error %g\n",
              what, long(a.batch), long(a.in_channels), long(a.height), long(a.width), long(a.out_channels),
              long(a.kernel_h), long(a.kernel_w), long(a.dilation_h), long(a.dilation_w), int(a.mode), a.tile,
              a.channels_last ? "channels last" : "channels first", std::sqrt(error / norm));
  ++failures;
}

void expect_same(const char* what, const ConvShape& a, const Floats& one, const Floats& other) {
  if (std::memcmp(one.data(), other.data(), one.size() * sizeof(float)) == 0) return;
  expect_near(what, a, one, Doubles(other.begin(), other.end()), -1);
}

struct Results {
  Floats out, grad_x, grad_weight, grad_bias, grad_residual;
};

class Case {
 public:
  Case(const ConvShape& shape, bool relu)
      : a_(shape),
        relu_(relu),
        inputs_(size_t(a_.batch * a_.in_channels * a_.height * a_.width)),
        outputs_(size_t(a_.batch * a_.out_channels * a_.out_height() * a_.out_width())),
        weights_(size_t(a_.in_channels * a_.out_channels * a_.kernel_h * a_.kernel_w)),
        channels_(size_t(a_.out_channels)),
        random_(unsigned(a_.height * 1000 + a_.width)),
        x_(numbers(inputs_)),
        weight_(numbers(weights_)),
        bias_(numbers(channels_)),
        residual_(numbers(outputs_)),
        grad_(numbers(outputs_)) {}

  void check() {
    const Results one = run(1), two = run(2);
    expect_same("out, by threads", a_, one.out, two.out);
    expect_same("grad_x, by threads", a_, one.grad_x, two.grad_x);
    expect_same("grad_weight, by threads", a_, one.grad_weight, two.grad_weight);
    expect_same("grad_bias, by threads", a_, one.grad_bias, two.grad_bias);
    Doubles out(outputs_), grad_x(inputs_), grad_weight(weights_), grad_bias(channels_), grad_residual(outputs_);
    each_product(a_, [&](size_t o, size_t x, size_t w) { out[o] += double(x_[x]) * double(weight_[w]); });
    each_output([&](size_t i, size_t c) {
      out[i] += double(bias_[c]) + double(residual_[i]);
      if (relu_ && out[i] < 0) out[i] = 0;
      grad_residual[i] = relu_ && !(one.out[i] > 0) ? 0 : double(grad_[i]);
      grad_bias[c] += grad_residual[i];
    });
    each_product(a_, [&](size_t o, size_t x, size_t w) {
      grad_x[x] += grad_residual[o] * double(weight_[w]);
      grad_weight[w] += grad_residual[o] * double(x_[x]);
    });
    expect_near("out", a_, one.out, out, 1e-6);
    expect_near("grad_x", a_, one.grad_x, grad_x, 2e-6);
    expect_near("grad_weight", a_, one.grad_weight, grad_weight, 2e-6);
    expect_near("grad_bias", a_, one.grad_bias, grad_bias, 2e-6);
    expect_near("grad_residual", a_, one.grad_residual, grad_residual, 0);
    check_alone(one);
  }

 private:
  Floats numbers(size_t count) {
    std::uniform_real_distribution<float> uniform(-1, 1);
    Floats result(count);
    for (float& number : result) number = uniform(random_);
    return result;
  }

  template <class Visit>
  void each_output(const Visit& visit) const {
    for (int64_t n = 0; n < a_.batch; ++n)
      for (int64_t c = 0; c < a_.out_channels; ++c)
        for (int64_t y = 0; y < a_.out_height(); ++y)
          for (int64_t x = 0; x < a_.out_width(); ++x) visit(size_t(at_out(a_, n, c, y, x)), size_t(c));
  }

  Floats spectrum(bool transposed, int threads) const {
    const int64_t in = a_.in_channels, out = a_.out_channels;
    const int tile = transposed ? backward_tile() : a_.tile;
    Floats result(size_t(transposed ? conv_spectrum_floats(out, in, tile) : conv_spectrum_floats(in, out, tile)));
    const int64_t h = a_.kernel_h, w = a_.kernel_w;
    kernels().conv_spectrum({in, out, h, w, tile, transposed, weight_.data(), result.data()}, threads);
    return result;
  }

  int backward_tile() const { return is_winograd(a_.tile) ? 16 : a_.tile; }

  ConvBackward gradients(const Results& r) const {
    ConvShape shape = a_;
    shape.tile = backward_tile();
    return {shape,   x_.data(), grad_.data(), relu_ ? r.out.data() : nullptr, nullptr, nullptr,
            nullptr, nullptr,   nullptr};
  }

  Results run(int threads) const {
    Results r = {Floats(outputs_), Floats(inputs_), Floats(weights_), Floats(channels_), Floats(outputs_)};
    const Floats forward = spectrum(false, threads), backward = spectrum(true, threads);
    kernels().conv_forward({a_, x_.data(), forward.data(), bias_.data(), residual_.data(), relu_, r.out.data()},
                           threads);
    ConvBackward call = gradients(r);
    call.spectrum = backward.data();
    call.grad_x = r.grad_x.data();
    call.grad_weight = r.grad_weight.data();
    call.grad_bias = r.grad_bias.data();
    call.grad_residual = r.grad_residual.data();
    kernels().conv_backward(call, threads);
    return r;
  }

  // A gradient does not depend on which others are wanted.
  void check_alone(const Results& together) const {
    Floats grad_x(inputs_), grad_weight(weights_);
    const Floats backward = spectrum(true, 1);
    ConvBackward call = gradients(together);
    call.spectrum = backward.data();
    call.grad_x = grad_x.data();
    kernels().conv_backward(call, 1);
    call = gradients(together);
    call.grad_weight = grad_weight.data();
    kernels().conv_backward(call, 1);
    expect_same("grad_x alone", a_, grad_x, together.grad_x);
    expect_same("grad_weight alone", a_, grad_weight, together.grad_weight);
  }

  const ConvShape a_;
  const bool relu_;
  const size_t inputs_, outputs_, weights_, channels_;
  std::mt19937 random_;
  const Floats x_, weight_, bias_, residual_, grad_;
};

}  // namespace

int main() {
  const ConvShape shapes[] = {
      {1, 3, 5, 19, 40, 3, 3, 1, 1, 1, 1, 1, 1, Padding::zeros, 16, false},
      {2, 5, 3, 23, 21, 4, 2, 2, 3, 0, 3, 2, 1, Padding::zeros, 16, false},
      {1, 16, 17, 33, 35, 7, 7, 1, 1, 3, 3, 3, 3, Padding::zeros, 32, false},
      {1, 17, 2, 9, 41, 11, 5, 1, 2, 5, 5, 8, 0, Padding::zeros, 32, false},
      {1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, Padding::zeros, 16, false},
      {1, 2, 2, 4, 4, 16, 16, 1, 1, 9, 9, 20, 20, Padding::zeros, 16, false},
      {1, 33, 9, 18, 20, 2, 15, 1, 1, 1, 0, 7, 7, Padding::zeros, 16, false},
      {1, 3, 32, 19, 40, 3, 3, 1, 1, 1, 1, 1, 1, Padding::zeros, 6, false},
      {2, 33, 17, 10, 13, 3, 3, 1, 2, 1, 2, 3, 0, Padding::zeros, 6, false},
  };
  for (ConvShape shape : shapes)
    for (Padding mode : {Padding::zeros, Padding::reflect, Padding::replicate})
      for (bool channels_last : {false, true})
        for (bool relu : {false, true}) {
          shape.mode = mode;
          shape.channels_last = channels_last;
          if (mode == Padding::reflect && (shape.top >= shape.height || shape.bottom >= shape.height ||
                                           shape.left >= shape.width || shape.right >= shape.width))
            continue;
          Case(shape, relu).check();
        }
  std::printf("%s: %d failures\n", kernels().isa, failures);
  return failures > 0;
}
