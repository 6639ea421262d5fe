#pragma once
#include <gmock/gmock.h>

#include <string>

#include "mezzotint/convert/report/report.h"

/// Reports made up for tests.
namespace mezzotint::test {

/// Gives a layer a thousand weights of size 1 and this relative error.
inline void set_error(convert::ReportLayer& layer, double relative_error) {
  convert::MeasuredErrors errors;
  errors.elements = 1000;
  errors.a2 = errors.b2 = errors.ab = 1000;
  errors.e2 = 1000 * relative_error * relative_error;
  errors.max_a = 1;
  errors.max_error = relative_error;
  errors.values[81] = 1000;
  errors.errors[70] = 900;
  errors.errors[0] = 100;
  layer.fate = convert::Fate::measured;
  layer.errors = errors;
}

/// "blocks.B.T" with four types of layers, all measured, with errors a little above 2.6 %.
inline convert::Report sample_report(size_t layers) {
  convert::Report report;
  report.title = "in.safetensors as eight";
  report.input = "in.safetensors";
  report.output = "out.safetensors";
  report.bytes_in = 2000 * layers;
  report.bytes_out = 1000 * layers;
  report.bits_per_weight = 8;
  report.command = "mezzotint convert in.safetensors -o out.safetensors --to eight";
  for (size_t i = 0; i < layers; ++i) {
    convert::ReportLayer layer;
    layer.name = "blocks." + std::to_string(i / 4) + "." + std::string(1, static_cast<char>('a' + i % 4));
    layer.from = "BF16";
    layer.to = "eight";
    layer.shape = {10, 100};
    layer.bytes_in = 2000;
    layer.bytes_out = 1000;
    set_error(layer, 0.026 + 0.00001 * static_cast<double>(i));
    report.layers.push_back(std::move(layer));
  }
  return report;
}

}  // namespace mezzotint::test
