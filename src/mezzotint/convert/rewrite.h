#pragma once
#include <filesystem>
#include <functional>
#include <vector>

#include "mezzotint/convert/execute.h"
#include "mezzotint/io/reader.h"
#include "mezzotint/io/writer.h"

/// Writing a changed copy of a file, tensor by tensor: what edit and repair share.
namespace mezzotint::convert {

/// One tensor of the copy: bytes of a source tensor, or made when their turn comes.
struct RewriteItem {
  io::TensorSpec spec;
  const io::Source* source = nullptr;  ///< null: `make` gives the bytes
  size_t tensor = 0;
  std::function<std::vector<std::byte>()> make;

  /// A copy under a new name; dtype and shape may be told anew as long as the size stays.
  static RewriteItem copy(const io::Source& source, size_t tensor, std::string name);
  static RewriteItem text(std::string name, std::string text);  ///< a U8 tensor
};

/// Throws Error "output-is-input" where a file to be written is one of the files being read (links included).
void refuse_input_as_output(const io::Source& source, const io::OutputPlan& plan);

/// Streams the items to `output` with a bounded buffer; atomic. Uses overwrite, progress and cancel of `options`;
/// throws Error "cancelled" after a cancel, leaving nothing behind.
void rewrite(const std::filesystem::path& output, const std::vector<RewriteItem>& items,
             const io::OutputOptions& layout, const ExecuteOptions& options,
             const std::vector<const io::Source*>& inputs);

}  // namespace mezzotint::convert
