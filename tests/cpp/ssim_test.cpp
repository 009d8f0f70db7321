// The SSIM kernel against loops over single pixels in double precision, in buffers of exactly the size it needs,
// so that a sanitizer sees every stray access.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <random>
#include <vector>

#include "../../csrc/cpu/common/kernels.h"
#include "../../csrc/math/ssim.h"

using namespace deal;

namespace {

int failures = 0;

struct Shape {
  int64_t planes, height, width, margin;
  int64_t pixels() const { return planes * height * width; }
  int64_t map_height() const { return height - 2 * margin; }
  int64_t map_width() const { return width - 2 * margin; }
};

using Image = std::vector<double>;

// The sum under the window of every place of the result, whose first is `shift` pixels before the image's.
Image filtered_image(const Image& image, int64_t planes, int64_t height, int64_t width, int64_t rows, int64_t columns,
                     int64_t shift) {
  double taps[2 * kReach + 1], total = 0;
  for (int k = -kReach; k <= kReach; ++k) total += taps[kReach + k] = std::exp(-k * k / 4.5);
  Image result(size_t(planes * rows * columns), 0);
  for (int64_t p = 0; p < planes; ++p)
    for (int64_t y = 0; y < rows; ++y)
      for (int64_t x = 0; x < columns; ++x)
        for (int i = -kReach; i <= kReach; ++i)
          for (int k = -kReach; k <= kReach; ++k) {
            const int64_t at_y = y - shift + i, at_x = x - shift + k;
            if (at_y < 0 || at_y >= height || at_x < 0 || at_x >= width) continue;
            result[size_t((p * rows + y) * columns + x)] += taps[kReach + i] * taps[kReach + k] / (total * total) *
                                                            image[size_t((p * height + at_y) * width + at_x)];
          }
  return result;
}

void expect_near(const char* what, const Shape& s, double got, double expected, double tolerance) {
  if (std::fabs(got - expected) <= tolerance) return;
  std::printf("%s: [%ld, %ld, %ld], margin %ld: %g, expected %g\n", what, long(s.planes), long(s.height), long(s.width),
              long(s.margin), got, expected);
  ++failures;
}

template <class T>
struct Exact {
  explicit Exact(int64_t count) : count(count), data(new T[size_t(count)]) {}
  int64_t count;
  std::unique_ptr<T[]> data;
  T* get() const { return data.get(); }
};

template <class T>
void check(const Shape& s, DType dtype, bool of_map, int threads) {
  const double c1 = 1e-4, c2 = 9e-4, structure = of_map ? 1 : -1.1, pixel = of_map ? 0 : 0.75,
               factor = of_map ? 1 : 0.5;
  const double tolerance = dtype == DType::float64 ? 1e-11 : 2e-3;
  std::mt19937 random(unsigned(s.height * 1000 + s.width));
  std::uniform_real_distribution<double> uniform(0, 1);
  const int64_t values = s.planes * s.map_height() * s.map_width();
  Exact<T> a(s.pixels()), b(s.pixels()), map(values), grad(of_map ? values : 1), grad_a(s.pixels()), grad_b(s.pixels());
  T loss = 0;
  for (int64_t i = 0; i < s.pixels(); ++i) {
    a.data[i] = T(uniform(random));
    b.data[i] = i % 3 ? T(0.7 * a.data[i] + 0.3 * uniform(random)) : a.data[i];
  }
  for (int64_t i = 0; i < grad.count; ++i) grad.data[i] = of_map ? T(uniform(random) - 0.5) : T(factor);
  Ssim call = {dtype, s.planes, s.height, s.width, s.margin, c1, c2, a.get(), b.get(), map.get(), 1.5, structure, pixel,
               &loss, nullptr, false, nullptr, nullptr};
  kernels().ssim(call, threads);
  const T without_gradient = loss;
  call.grad = grad.get();
  call.grad_of_map = of_map;
  call.grad_a = grad_a.get();
  kernels().ssim(call, threads);
  call.grad_b = grad_b.get();
  kernels().ssim(call, threads);
  expect_near("the loss beside a gradient", s, loss, without_gradient, 0);

  Image one(a.get(), a.get() + a.count), other(b.get(), b.get() + b.count), squares(one), product(one);
  for (size_t i = 0; i < one.size(); ++i) {
    squares[i] = one[i] * one[i] + other[i] * other[i];
    product[i] = one[i] * other[i];
  }
  Image moments[4], slopes[4];
  int k = 0;
  for (const Image* image : {&one, &other, &squares, &product})
    moments[k++] = filtered_image(*image, s.planes, s.height, s.width, s.map_height(), s.map_width(), -s.margin);
  double total = 1.5;
  for (Image& slope : slopes) slope.resize(size_t(values));
  for (size_t i = 0; i < size_t(values); ++i) {
    const Moments<double> m = {moments[0][i], moments[1][i], moments[2][i], moments[3][i]};
    const double value = similarity(m, c1, c2);
    expect_near("map", s, map.data[i], value, tolerance);
    total += structure * value;
    const double weight = structure * (of_map ? double(grad.data[i]) : factor), step = 1e-7;
    const double found[] = {similarity(Moments<double>{m.a + step, m.b, m.squares, m.product}, c1, c2),
                            similarity(Moments<double>{m.a, m.b + step, m.squares, m.product}, c1, c2),
                            similarity(Moments<double>{m.a, m.b, m.squares + step, m.product}, c1, c2),
                            similarity(Moments<double>{m.a, m.b, m.squares, m.product + step}, c1, c2)};
    const auto exact = similarity(m, c1, c2, weight);
    const double claimed[] = {exact.slope.a, exact.slope.b, exact.slope.squares / 2, exact.slope.product};
    for (int n = 0; n < 4; ++n) {
      expect_near("slope", s, claimed[n], weight * (found[n] - value) / step, 1e-2 * (1 + std::fabs(claimed[n])));
      slopes[n][i] = n == 2 ? 2 * claimed[n] : claimed[n];
    }
  }
  for (Image& slope : slopes)
    slope = filtered_image(slope, s.planes, s.map_height(), s.map_width(), s.height, s.width, s.margin);
  double largest = 0;
  for (const Image& slope : slopes)
    for (double each : slope) largest = std::fabs(each) > largest ? std::fabs(each) : largest;
  for (size_t i = 0; i < one.size(); ++i) {
    total += pixel * std::fabs(one[i] - other[i]);
    const double apart = factor * pixel * ((one[i] > other[i]) - (one[i] < other[i]));
    expect_near("gradient of a", s, grad_a.data[i],
                slopes[0][i] + one[i] * slopes[2][i] + other[i] * slopes[3][i] + apart, tolerance * largest);
    expect_near("gradient of b", s, grad_b.data[i],
                slopes[1][i] + other[i] * slopes[2][i] + one[i] * slopes[3][i] - apart, tolerance * largest);
  }
  expect_near("loss", s, loss, total, tolerance * double(s.pixels()));
}

// Half types differ from float32 in how rows are read and written, which every length of a row's rest tries.
void check_halves(DType dtype, int64_t width) {
  const int64_t count = 3 * width;
  Exact<uint16_t> a(count), map(count), grad_a(count), grad_b(count);
  for (int64_t i = 0; i < count; ++i) a.data[i] = uint16_t((dtype == DType::float16 ? 0x3000 : 0x3e00) + i % 64);
  const Ssim call = {dtype,     1, 3, width, 0,       1e-4,    9e-4,  a.get(),      a.get(),
                     map.get(), 0, 1, 0,     nullptr, nullptr, false, grad_a.get(), grad_b.get()};
  kernels().ssim(call, 1);
  for (int64_t i = 0; i < count; ++i)
    expect_near("map of equal halves", {1, 3, width, 0}, map.data[i], dtype == DType::float16 ? 0x3c00 : 0x3f80, 0);
}

}  // namespace

int main() {
  for (int64_t height : {1, 11, 12, 27})
    for (int64_t width : {1, 11, 29, 259})
      for (int64_t margin : {0, 5}) {
        if (2 * margin >= height || 2 * margin >= width) continue;
        for (int threads : {1, 2})
          for (bool of_map : {false, true}) {
            const Shape shape = {2, height, width, margin};
            check<float>(shape, DType::float32, of_map, threads);
            check<double>(shape, DType::float64, of_map, threads);
          }
      }
  for (int64_t width = 1; width < 40; ++width)
    for (DType dtype : {DType::float16, DType::bfloat16}) check_halves(dtype, width);
  std::printf("%s: %d failures\n", kernels().isa, failures);
  return failures > 0;
}
