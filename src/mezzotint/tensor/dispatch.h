#pragma once
#include <cstdint>
#include <map>
#include <string>
#include <tuple>
#include <vector>

/// What became of the operations on quantized tensors. With MEZZOTINT_LOG=dispatch in the environment, every
/// (operation, layer, layout, kernel) is told once as a warning of libtorch; without it only what is dequantized is,
/// once for every operation and layout.
namespace mezzotint::tensor {

/// One kind of call.
struct DispatchRow {
  std::string operation;  ///< "aten::linear"
  std::string layer;      ///< name of the layer, "" where the loader gave none
  std::string format;     ///< label of the layout ("int8_tensorwise:scaling=row")
  std::string kernel;     ///< what computed it ("int8 x int8, avx512vnni"), "dequantized" where no kernel did
  std::string reason;     ///< why no faster one did, "" where there is none
  bool dequantized = false;
  uint64_t calls = 0;
};

/// Watches the operations of this thread until it is destroyed. Scopes nest; each sees everything.
class DispatchScope {
 public:
  enum class Fallback : uint8_t {
    allowed,
    error,  ///< dequantizing to compute throws c10::Error
  };
  explicit DispatchScope(Fallback fallback = Fallback::allowed);
  ~DispatchScope();
  DispatchScope(const DispatchScope&) = delete;
  DispatchScope& operator=(const DispatchScope&) = delete;

  /// Operations that were computed with dequantized values because no kernel takes them.
  uint64_t dequantized() const;
  std::vector<DispatchRow> rows() const;
  /// The rows as a table, sorted by layer.
  std::string summary() const;

 private:
  friend struct DispatchLog;
  using Key = std::tuple<std::string, std::string, std::string, std::string, std::string, bool>;
  Fallback fallback_;
  DispatchScope* outer_;
  std::map<Key, uint64_t> calls_;  ///< layer, operation, format, kernel, reason, dequantized
};

// --- for kernels ---------------------------------------------------------------------------------------------------

/// Whether somebody wants to know how operations of this thread are computed.
bool kernels_are_watched();
/// Tells how the operation that runs on this thread is computed and why not faster; the last call of an operation
/// counts. A kernel that tells nothing is listed as "codes".
void tell_kernel(std::string kernel, std::string reason = "");

/// Puts our operations under the dispatch key of quantized tensors, once; they do it when they are made.
void install_dispatch();

}  // namespace mezzotint::tensor
