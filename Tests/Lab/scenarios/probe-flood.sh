# A member sends probes as fast as it can: memory stays bounded, and no one else notices.
. "$(dirname "$0")/../lib.sh"

siege
attack probe-flood --seconds 4
unharmed
