# A member asks for echoes and never reads one: memory stays bounded, and no one else notices.
. "$(dirname "$0")/../lib.sh"

siege
attack never-reads --seconds 5
unharmed
