#!/bin/sh
# Writes the Swift code of the messages in this folder to ../Generated, from where it is committed.
set -eu
cd "$(dirname "$0")"
exec protoc --swift_out=../Generated --swift_opt=Visibility=Internal ./*.proto
