// The consensus of rows against loops over single columns in double precision, in buffers of exactly the size it needs,
// so that a sanitizer sees every stray access.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <memory>
#include <random>
#include <vector>

#include "../../csrc/cpu/common/kernels.h"

using namespace deal;

namespace {

using Column = std::vector<double>;

double nearness(double x, double value, double tolerance) { return 1 / (1 + std::pow((x - value) / tolerance, 2)); }

double settled(const Column& x, const Column& weights, double value, std::vector<double> tolerances) {
  for (double tolerance : tolerances) {
    double sum = 0, total = 1e-9;
    for (size_t r = 0; r < x.size(); ++r) {
      const double near = weights[r] * nearness(x[r], value, tolerance);
      sum += near * x[r];
      total += near;
    }
    value = sum / total;
  }
  return value;
}

// One image of columns.
std::vector<double> expected(const std::vector<Column>& x, const std::vector<Column>& weights, double t, size_t lower,
                             size_t upper) {
  std::vector<double> found;
  for (size_t c = 0; c < x.size(); ++c) {
    double sum = 0, total = 1e-9, best = 0, most = 0;
    for (size_t r = 0; r < x[c].size(); ++r) {
      sum += weights[c][r] * x[c][r];
      total += weights[c][r];
    }
    Column ordered = x[c];
    std::sort(ordered.begin(), ordered.end());
    const double values[] = {settled(x[c], weights[c], sum / total, {20 * t, 10 * t, 5 * t, 2 * t, t}),
                             settled(x[c], weights[c], ordered[lower], {2 * t, t}),
                             settled(x[c], weights[c], ordered[upper], {2 * t, t})};
    for (double value : values) {
      double support = 0;
      for (double each : x[c]) support += nearness(each, value, t);
      if (support > most) most = support, best = value;
    }
    found.push_back(best);
  }
  for (int step = 0; step < 2; ++step) {
    const std::vector<double> before = found;
    for (size_t c = 0; c < x.size(); ++c) {
      Column refined = weights[c];
      const size_t first = c < 4 ? 0 : c - 4, end = std::min(c + 5, x.size());
      for (size_t r = 0; r < refined.size(); ++r) {
        double mean = 0;
        for (size_t k = first; k < end; ++k) mean += nearness(x[k][r], before[k], 2 * t) / double(end - first);
        refined[r] *= std::pow(mean, 4);
      }
      found[c] = settled(x[c], refined, before[c], {5 * t, 2 * t, t});
    }
  }
  return found;
}

int failures = 0;

// Most rows agree, so that rounding does not decide between two starts.
void check(int64_t batch, int64_t rows, int64_t columns, int threads) {
  const int64_t count = batch * rows * columns;
  std::unique_ptr<float[]> x(new float[size_t(count)]), weights(new float[size_t(count)]),
      tolerance(new float[size_t(batch)]), out(new float[size_t(batch * columns)]);
  std::mt19937 random(unsigned(rows * 1000 + columns));
  std::normal_distribution<float> normal;
  std::uniform_real_distribution<float> uniform(0, 1);
  for (int64_t b = 0; b < batch; ++b) tolerance[size_t(b)] = 0.05f + 0.05f * uniform(random);
  for (int64_t i = 0; i < count; ++i) {
    const float level = 0.1f * float(i % columns % 7);
    x[size_t(i)] = uniform(random) < 0.2f ? normal(random) : level + 0.02f * normal(random);
    weights[size_t(i)] = 0.5f + uniform(random);
  }
  const int64_t lower = (rows - 1) / 4, upper = 3 * (rows - 1) / 4;
  kernels().consensus({batch, rows, columns, x.get(), weights.get(), tolerance.get(), lower, upper, out.get()}, threads);
  for (int64_t b = 0; b < batch; ++b) {
    std::vector<Column> image(static_cast<size_t>(columns)), of_weights(image.size());
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t c = 0; c < columns; ++c) {
        const size_t at = size_t((b * rows + r) * columns + c);
        image[size_t(c)].push_back(double(x[at]));
        of_weights[size_t(c)].push_back(double(weights[at]));
      }
    const auto wanted = expected(image, of_weights, double(tolerance[size_t(b)]), size_t(lower), size_t(upper));
    for (int64_t c = 0; c < columns; ++c) {
      const double got = double(out[size_t(b * columns + c)]);
      if (std::fabs(got - wanted[size_t(c)]) <= 1e-3) continue;
      std::printf("[%ld, %ld, %ld] column %ld: %g, expected %g\n", long(batch), long(rows), long(columns), long(c), got,
                  wanted[size_t(c)]);
      ++failures;
    }
  }
}

}  // namespace

int main() {
  for (int64_t rows : {21, 40, 96})
    for (int64_t columns : {1, 5, 31, 32, 33, 70, 130})
      for (int threads : {1, 2}) check(2, rows, columns, threads);
  std::printf("%s: %d failures\n", kernels().isa, failures);
  return failures > 0;
}
