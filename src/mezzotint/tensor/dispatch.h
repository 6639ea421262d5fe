#pragma once
#include <cstdint>
#include <map>
#include <string>
#include <tuple>
#include <vector>

/// What became of the operations on quantized tensors.
namespace mezzotint::tensor {

/// One kind of call: how often, and why no kernel for codes ran ("" where one did).
struct DispatchRow {
  std::string operation;  ///< "aten::linear"
  std::string layer;      ///< name of the layer, "" where the loader gave none
  std::string format;
  std::string reason;
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

  /// Operations that were computed with dequantized values.
  uint64_t dequantized() const;
  std::vector<DispatchRow> rows() const;
  /// The rows as a table, a layer a line.
  std::string summary() const;

 private:
  friend struct DispatchLog;
  Fallback fallback_;
  DispatchScope* outer_;
  std::map<std::tuple<std::string, std::string, std::string, std::string>, uint64_t> calls_;
};

/// Puts our operations under the dispatch key of quantized tensors, once; they do it when they are made.
void install_dispatch();

}  // namespace mezzotint::tensor
