// What the C++ of this package shares: vectors of the processor, and calls from XLA.

#ifndef NAS_SUPERNETS_NATIVE_H_
#define NAS_SUPERNETS_NATIVE_H_

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <memory>
#include <thread>

#include "xla/ffi/api/c_api.h"

namespace {

// Length of a vector, and size of a product's tile: its kRows x kVectors sums stay in registers.
#if defined(__AVX512F__)
constexpr int kBytes = 64, kRows = 8;
#elif defined(__AVX__)
constexpr int kBytes = 32, kRows = 4;
#elif defined(__aarch64__)
constexpr int kBytes = 16, kRows = 8;
#else
constexpr int kBytes = 16, kRows = 4;
#endif
constexpr int kVectors = 3;

int64_t RoundUp(int64_t count, int64_t unit) { return (count + unit - 1) / unit * unit; }

// A call, its operands and results in the order in which they are read.
class Call {
 public:
  explicit Call(XLA_FFI_CallFrame* frame) : frame_(frame) {}

  template <class T>
  T* Operand() {
    const XLA_FFI_Buffer* buffer = Buffer(frame_->args.args[operand_++]);
    shape = buffer->dims;
    rank_ = buffer->rank;
    return static_cast<T*>(buffer->data);
  }
  template <class T>
  T* Result() {
    return static_cast<T*>(Buffer(frame_->rets.rets[result_++])->data);
  }
  // How many elements the operand read last has.
  int64_t Size() const {
    int64_t size = 1;
    for (int64_t i = 0; i < rank_; ++i) size *= shape[i];
    return size;
  }
  bool HasResult() const { return result_ < frame_->rets.size; }

  int64_t Threads() const {
    int64_t count = 1;
    XLA_FFI_ThreadPool_NumThreads_Args args = {XLA_FFI_ThreadPool_NumThreads_Args_STRUCT_SIZE,
                                               nullptr, frame_->ctx, &count};
    frame_->api->XLA_FFI_ThreadPool_NumThreads(&args);
    return count;
  }

  // Runs work(0) ... work(count - 1) on this thread and on those of the pool that are free. It
  // waits only for threads that have begun: if every thread of the pool waits here, each still
  // finishes its own work.
  template <class Work>
  void Parallel(int64_t count, const Work& work) const {
    struct Shared {
      const Work& work;
      const int64_t count;
      std::atomic<int64_t> next{0}, done{0};
      void Take() {
        for (int64_t i; (i = next++) < count; ++done) work(i);
      }
    };
    const std::shared_ptr<Shared> shared(new Shared{work, count});
    for (int64_t helper = 1; helper < std::min(count, Threads()); ++helper) {
      XLA_FFI_Task* task = [](void* data) {
        const std::unique_ptr<std::shared_ptr<Shared>> owned(
            static_cast<std::shared_ptr<Shared>*>(data));
        (*owned)->Take();
      };
      XLA_FFI_ThreadPool_Schedule_Args args = {XLA_FFI_ThreadPool_Schedule_Args_STRUCT_SIZE,
                                               nullptr, frame_->ctx, task,
                                               new std::shared_ptr<Shared>(shared)};
      frame_->api->XLA_FFI_ThreadPool_Schedule(&args);
    }
    shared->Take();
    while (shared->done < count) std::this_thread::yield();
  }

  const int64_t* shape;  // of the operand read last

 private:
  static XLA_FFI_Buffer* Buffer(void* buffer) { return static_cast<XLA_FFI_Buffer*>(buffer); }

  XLA_FFI_CallFrame* frame_;
  int64_t operand_ = 0, result_ = 0, rank_ = 0;
};

// XLA asks a handler for its version of the interface once, and then calls it.
inline XLA_FFI_Error* Handle(XLA_FFI_CallFrame* frame, void (*function)(Call&)) {
  if (frame->extension_start != nullptr &&
      frame->extension_start->type == XLA_FFI_Extension_Metadata) {
    XLA_FFI_Metadata* metadata =
        reinterpret_cast<XLA_FFI_Metadata_Extension*>(frame->extension_start)->metadata;
    metadata->api_version.major_version = XLA_FFI_API_MAJOR;
    metadata->api_version.minor_version = XLA_FFI_API_MINOR;
    return nullptr;
  }
  Call call(frame);
  function(call);
  return nullptr;
}

}  // namespace

#endif  // NAS_SUPERNETS_NATIVE_H_
