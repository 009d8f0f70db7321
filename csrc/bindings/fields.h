// Structs that Python makes by keyword: Struct(field=value, ...). pybind11 has keyword arguments too, but spends
// several microseconds on twenty of them, as long as the kernel of a small layer takes.
#pragma once
#include <pybind11/pybind11.h>

#include <memory>
#include <string>
#include <type_traits>
#include <vector>

namespace deal {
namespace bindings {

namespace py = pybind11;
using Address = std::uintptr_t;

template <class T = void>
T* pointer(py::handle value) {
  return reinterpret_cast<T*>(value.cast<Address>());
}

// Compiled once for each type rather than for each of the hundred fields. Pointers are integer addresses in Python.
template <class T>
__attribute__((noinline)) void assign(T& to, py::handle value) {
  if constexpr (std::is_pointer_v<T>) to = pointer<std::remove_pointer_t<T>>(value);
  else to = value.cast<T>();
}

template <auto member>
constexpr auto set = [](auto& call, py::handle value) { assign(call.*member, value); };

// The fields of a struct: their names, and how each is set. A field that is not required keeps its default.
template <class Call>
class Fields {
 public:
  using Set = void (*)(Call&, py::handle);

  explicit Fields(const char* name) : name_(name) {}

  Fields& required(const char* name, Set set) { return add(name, set, true); }
  Fields& optional(const char* name, Set set) { return add(name, set, false); }

  // Binds the struct. `finish` is called when all fields are set.
  void define(py::module_& m, void (*finish)(Call&) = nullptr) const {
    // Another extension in the same process may bind the same types, in another version.
    py::class_<Call>(m, name_, py::module_local()).def(py::init([fields = *this, finish](const py::kwargs& given) {
      auto call = fields.make(given);
      if (finish) finish(*call);
      return call;
    }));
  }

 private:
  struct Field {
    const char* name;
    PyObject* key;  // the name as an interned string, which lives as long as the process
    Set set;
    bool required;
  };

  __attribute__((noinline)) Fields& add(const char* name, Set set, bool required) {
    fields_.push_back({name, PyUnicode_InternFromString(name), set, required});
    return *this;
  }

  std::unique_ptr<Call> make(const py::kwargs& given) const {
    auto call = std::make_unique<Call>();
    size_t missing = 0, found = 0;
    for (const Field& field : fields_) {
      PyObject* const value = PyDict_GetItemWithError(given.ptr(), field.key);
      if (!value) {
        missing += field.required;
        continue;
      }
      ++found;
      try {
        field.set(*call, value);
      } catch (const py::cast_error&) {
        throw py::type_error(std::string(name_) + ": " + field.name + " has the wrong type");
      }
    }
    if (missing || found < given.size()) refuse(given);
    return call;
  }

  // Names a field that is missing or unknown.
  [[noreturn]] void refuse(const py::kwargs& given) const {
    py::set known;
    for (const Field& field : fields_) {
      if (field.required && !given.contains(field.name))
        throw py::type_error(std::string(name_) + " needs " + field.name);
      known.add(field.name);
    }
    for (const auto& item : given)
      if (!known.contains(item.first))
        throw py::type_error(std::string(name_) + " has no field " + item.first.cast<std::string>());
    throw py::type_error(std::string(name_) + " was given wrong fields");
  }

  const char* name_;
  std::vector<Field> fields_;
};

}  // namespace bindings
}  // namespace deal
