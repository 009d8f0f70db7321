// The consensus of rows for Python.
#pragma once
#include "call.h"

namespace deal {
namespace bindings {

inline void define_consensus(py::module_& m) {
  Fields<Consensus>("Consensus")
      .required("batch", set<&Consensus::batch>)
      .required("rows", set<&Consensus::rows>)
      .required("columns", set<&Consensus::columns>)
      .required("x", set<&Consensus::x>)
      .required("weights", set<&Consensus::weights>)
      .required("tolerance", set<&Consensus::tolerance>)
      .required("lower", set<&Consensus::lower>)
      .required("upper", set<&Consensus::upper>)
      .required("out", set<&Consensus::out>)
      .define(m);
}

inline void define_consensus_cpu(py::module_& cpu) { define_cpu<Consensus>(cpu, "consensus", &Kernels::consensus); }

}  // namespace bindings
}  // namespace deal
