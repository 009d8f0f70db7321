#include "parallel.h"

#include <pthread.h>

namespace deal {
namespace {

bool in_forked_child = false;
const int registered = pthread_atfork(nullptr, nullptr, [] { in_forked_child = true; });

}  // namespace

bool forked() { return in_forked_child; }

}  // namespace deal
