"""What is known of the second stage of translation: EPT and nested paging, with sources."""
