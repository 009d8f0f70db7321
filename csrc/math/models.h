// All models with several states.
#pragma once
#include "alif.h"
#include "clif.h"
#include "cuba.h"
#include "lsnn.h"

namespace deal {

template <template <class> class Model>
struct Of {
  template <class V>
  using model = Model<V>;
};

// Returns run(Of<the model>()).
template <class Run>
auto with_model(Model model, const Run& run) {
  switch (model) {
    case Model::cuba: return run(Of<Cuba>());
    case Model::alif: return run(Of<Alif>());
    case Model::lsnn: return run(Of<Lsnn>());
    default: return run(Of<Clif>());
  }
}

}  // namespace deal
