//===- Embeddings.h - embeddings and classes over HTTP ----------*- C++ -*-===//
//
// POST /v1/embeddings as platform.openai.com/docs/api-reference/embeddings has
// it. Where the model takes images, an input may also be {"image": ...} or a
// content part {"type": "image_url", ...}, with the picture in base64 or as a
// data: URL; other URLs are not fetched. POST /classify takes the same inputs.
//
//===----------------------------------------------------------------------===//
#pragma once

#include "OpenAI.h"

namespace isthmus::rt {

/// The answer to the body of a request. Throws ApiError.
nlohmann::json answerEmbeddings(const std::string &body,
                                const ServedModel &model);
nlohmann::json answerClassify(const std::string &body,
                              const ServedModel &model);

} // namespace isthmus::rt
